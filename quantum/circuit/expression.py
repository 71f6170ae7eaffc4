"""Angles as expressions of features and weights: what tracing a circuit hands to it.

A circuit is called once with NumPy arrays of these symbols in place of numbers, and each gate's
angle is then known as arithmetic. The same arithmetic is done later on torch tensors, on NumPy
arrays and on Qiskit's parameters.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

import numpy as np

Kind = Literal["feature", "weight", "slot"]
FULL_TURNS = 4 * np.pi  # a rotation by it is the identity
_tracing: ContextVar[bool] = ContextVar("tracing", default=False)


@contextmanager
def tracing() -> Iterator[None]:
    """Refuse to compare expressions with numbers meanwhile: a user's circuit runs."""
    before = _tracing.set(True)
    try:
        yield
    finally:
        _tracing.reset(before)


@dataclass(frozen=True, slots=True)
class Expression:
    """A symbol, or arithmetic with symbols.

    Attributes
    ----------
    operation : str
        ``feature``, ``weight`` or ``slot`` for a symbol; ``+ - * / **``; or a function's name.
    operands : tuple
        A symbol's index; else expressions and numbers.
    """

    operation: str
    operands: tuple[Any, ...]

    def __add__(self, other: Any) -> Expression:
        return _binary("+", self, other)

    def __radd__(self, other: Any) -> Expression:
        return _binary("+", other, self)

    def __sub__(self, other: Any) -> Expression:
        return _binary("-", self, other)

    def __rsub__(self, other: Any) -> Expression:
        return _binary("-", other, self)

    def __mul__(self, other: Any) -> Expression:
        return _binary("*", self, other)

    def __rmul__(self, other: Any) -> Expression:
        return _binary("*", other, self)

    def __truediv__(self, other: Any) -> Expression:
        return _binary("/", self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return _binary("/", other, self)

    def __pow__(self, other: Any) -> Expression:
        return NotImplemented if isinstance(other, Expression) else _binary("**", self, other)

    def __eq__(self, other: object) -> bool:
        if _tracing.get() and isinstance(other, numbers.Number):
            self._no_value()  # else `if weights[0] == 0:` would be False, whatever the weight
        if not isinstance(other, Expression):
            return NotImplemented
        return (self.operation, self.operands) == (other.operation, other.operands)

    def __bool__(self) -> bool:
        return self._no_value()

    def __float__(self) -> float:
        return self._no_value()

    def _no_value(self) -> NoReturn:
        raise TypeError("features and weights have no values while the circuit is traced")

    def __neg__(self) -> Expression:
        return Expression("*", (-1.0, self))

    def __pos__(self) -> Expression:
        return self

    def __mod__(self, other: Any) -> Expression:
        if not np.isclose(float(other), FULL_TURNS):  # PennyLane's own: a rotation's period
            raise TypeError("an angle that depends on features or weights has no remainder")
        return self

    def sin(self) -> Expression:
        """Sine; NumPy calls these methods on its arrays of objects."""
        return Expression("sin", (self,))

    def cos(self) -> Expression:
        """Cosine."""
        return Expression("cos", (self,))

    def tan(self) -> Expression:
        """Tangent."""
        return Expression("tan", (self,))

    def arcsin(self) -> Expression:
        """Inverse sine."""
        return Expression("arcsin", (self,))

    def arccos(self) -> Expression:
        """Inverse cosine."""
        return Expression("arccos", (self,))

    def arctan(self) -> Expression:
        """Inverse tangent."""
        return Expression("arctan", (self,))

    def exp(self) -> Expression:
        """Exponential."""
        return Expression("exp", (self,))

    def log(self) -> Expression:
        """Natural logarithm."""
        return Expression("log", (self,))

    def sqrt(self) -> Expression:
        """Square root."""
        return self**0.5

    def tanh(self) -> Expression:
        """Hyperbolic tangent."""
        return 1.0 - 2.0 / ((2.0 * self).exp() + 1.0)

    def conjugate(self) -> Expression:
        """Itself: angles are real."""
        return self

    @property
    def symbol(self) -> tuple[str, int] | None:
        """Kind and index of a bare symbol; None for arithmetic."""
        return (self.operation, self.operands[0]) if self.operation in SYMBOLS else None

    def symbols(self) -> set[tuple[str, int]]:
        """Kinds and indices of all symbols in it."""
        return {part.symbol for part in _parts(self) if part.symbol}

    def value(self, features: Any = None, slots: Any = None, weights: Any = None) -> Any:
        """Compute it.

        Parameters
        ----------
        features, slots, weights : array, shape (..., n), optional
            Values of the symbols: torch, NumPy, or NumPy arrays of Qiskit's parameters.

        Returns
        -------
        array, shape (...)
            Of the same library.
        """
        return self.compute({"feature": features, "slot": slots, "weight": weights})

    def compute(
        self, values: Mapping[str, Any], call: Callable[[str, Any], Any] | None = None
    ) -> Any:
        """Compute it; ``call`` applies a function by name, None: the library of the values."""
        apply = call or _call
        known: dict[int, Any] = {}
        for part in _parts(self):
            if part.symbol:
                value = values[part.operation][..., part.operands[0]]
                single = isinstance(value, np.ndarray) and value.dtype == object and not value.ndim
                known[id(part)] = value.item() if single else value
                continue
            of = [known[id(o)] if isinstance(o, Expression) else o for o in part.operands]
            known[id(part)] = (
                BINARY[part.operation](*of)
                if part.operation in BINARY
                else apply(part.operation, *of)
            )
        return known[id(self)]

    def replace(self, symbols: Mapping[tuple[str, int], Expression]) -> Expression:
        """Put other expressions in place of symbols; those that are not named stay."""
        known: dict[int, Expression] = {}
        for part in _parts(self):
            if part.symbol:
                known[id(part)] = symbols.get(part.symbol, part)
                continue
            of = [known[id(o)] if isinstance(o, Expression) else o for o in part.operands]
            known[id(part)] = Expression(part.operation, tuple(of))
        return known[id(self)]


SYMBOLS = frozenset({"feature", "weight", "slot"})
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
}


def symbols(kind: Kind, *shape: int) -> Any:
    """Return an array of symbols, numbered row by row."""
    count = int(np.prod(shape))
    found = np.empty(count, dtype=object)
    found[:] = [Expression(kind, (index,)) for index in range(count)]
    return found.reshape(shape)


def _parts(whole: Expression) -> Iterator[Expression]:
    """Every part once, operands before what they are operands of; no recursion."""
    seen: set[int] = set()
    stack = [(whole, False)]
    while stack:
        part, ready = stack.pop()
        if ready:
            yield part
        elif id(part) not in seen:
            seen.add(id(part))
            stack.append((part, True))
            stack += [(o, False) for o in part.operands if isinstance(o, Expression)]


def _binary(operation: str, first: Any, second: Any) -> Expression:
    operands: list[Any] = []
    for operand in (first, second):
        if isinstance(operand, Expression):
            operands.append(operand)
        elif isinstance(operand, numbers.Real) or getattr(operand, "shape", None) == ():
            operands.append(float(operand))
        else:
            return cast(Expression, NotImplemented)  # an array: NumPy does it entry by entry
    return Expression(operation, tuple(operands))


def _call(name: str, value: Any) -> Any:
    own = getattr(value, name, None)
    return own() if own is not None else getattr(np, name)(value)

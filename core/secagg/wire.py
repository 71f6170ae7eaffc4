"""Bytes of the protocol's messages: fixed widths, read strictly."""

from __future__ import annotations

from core.secagg.errors import SecAggError

MOST_MEMBERS = 1000
"""Most members of a group: as many values of `fixed_point.RANGE` fit into the ring."""

MOST_LENGTH = 2**24
"""Most numbers of a vector."""

MOST_ROUNDS = 100_000
"""Most rounds of a run for which a site makes keys."""


class Reader:
    """Reads bytes that somebody else made.

    Parameters
    ----------
    data : bytes
        All of them.
    what : str
        What they should be, for the error.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at, self._what = bytes(data), 0, what

    def take(self, count: int) -> bytes:
        """Return the next bytes.

        Raises
        ------
        SecAggError
            If there are fewer.
        """
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise SecAggError(f"{self._what} is too short: {len(self._data)} bytes")
        self._at += count
        return taken

    def number(self, most: int) -> int:
        """Return the next 32-bit number.

        Raises
        ------
        SecAggError
            If it is above `most`.
        """
        found = int.from_bytes(self.take(4), "big")
        if found > most:
            raise SecAggError(f"{self._what} holds {found}; at most {most} is accepted")
        return found

    def above(self, before: int, most: int) -> int:
        """Return the next 32-bit number of an ascending list.

        Raises
        ------
        SecAggError
            If it is above `most`, or not above the one before: out of order, or there twice.
        """
        found = self.number(most)
        if found <= before:
            raise SecAggError(f"{self._what} has {found} after {before}: not in ascending order")
        return found

    def end(self) -> None:
        """Refuse bytes that are left over.

        Raises
        ------
        SecAggError
            If there are some.
        """
        if left := len(self._data) - self._at:
            raise SecAggError(f"{self._what} has {left} bytes too many")


def number_bytes(number: int) -> bytes:
    """Write a 32-bit number."""
    return number.to_bytes(4, "big")

"""Types of what stands in the files of a run folder, with their bounds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)


def _as_one(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Take a list as a whole: without one element the others would stand in wrong places."""
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError("a setting is a number, text, true or false")
    return value


def _square(value: list[list[int]]) -> list[list[int]]:
    if any(len(row) != len(value) for row in value):
        raise ValueError("a confusion matrix has as many rows as columns")
    return value


Number = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=10**18)]
Index = Annotated[int, Field(ge=0, lt=2**31)]
Key = Annotated[str, Field(pattern="^[0-9]{1,9}$")]

Clients = Annotated[list[Index], WrapValidator(_as_one)]
Counts = Annotated[list[Count], WrapValidator(_as_one)]
Names = Annotated[list[str], WrapValidator(_as_one)]
Square = Annotated[list[list[Count]], WrapValidator(_as_one), AfterValidator(_square)]
Setting = Annotated[Any, AfterValidator(_scalar)]
Scalars = dict[str, dict[str, Setting]]
"""Settings by section."""

"""Click types of settings that click itself lacks."""

from __future__ import annotations

import math
from typing import Any

import click


class Word(click.types.StringParamType):
    """Text that is not interpreted; `name` stands for it in the help."""

    def __init__(self, name: str) -> None:
        self.name = name


class Seconds(click.FloatRange):
    """Seconds from 0 to an hour; never NaN, which no bound rejects."""

    def __init__(self) -> None:
        super().__init__(0, 3600)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the number of seconds."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds


class Rate(click.ParamType):  # type: ignore[type-arg]  # of some versions of click
    """Fraction of calls: off, all, or a number from 0 to 1."""

    name = "off|RATE|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns `off`, `all` or the number, as text."""
        if value in ("off", "all"):
            return str(value)
        try:
            fraction = float(value)
        except ValueError:
            fraction = math.nan
        if not 0 <= fraction <= 1:
            self.fail(
                f"{value!r} is not a fraction of the calls; expected off, all, or a number from 0 to 1.", param, ctx
            )
        return str(value)


class Positive(click.FloatRange):
    """Number above 0; never NaN."""

    def __init__(self, largest: float) -> None:
        super().__init__(0, largest, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the number."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number

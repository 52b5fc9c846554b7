"""What a config value may be: types that say, in one line, what is wrong and what is allowed."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WrapValidator


class ConfigError(ValueError):
    """A config or an argument that cannot be used: one line; the command exits with 2."""


class UnfitError(ConfigError):
    """What a config asks for, where what a run has found does not allow it. A worker that raises
    it ends the run; what is committed stays."""

    stops_run = is_refusal = True


class Section(BaseModel):
    """A frozen part of the config that knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


#: what finds what directions of node layers do to each other: a method that attributes nothing
INTERACTIONS = "interactions"
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    near = difflib.get_close_matches(str(value).lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_of(*allowed: str) -> AfterValidator:
    """A text that is one of a few."""

    def check(value: str) -> str:
        if value not in allowed:
            hint = did_you_mean(value, allowed)
            raise ValueError(f"is not known; allowed: {', '.join(allowed)}{hint}")
        return value

    return AfterValidator(check)


def _as_list(value: Any) -> Any:
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise ValueError("is empty; give at least one value")
    for i, item in enumerate(values):
        if item in values[:i]:
            raise ValueError(f"has {item!r} twice; name each value once")
    return tuple(values)


#: a leaf that may be one value or a list of them, none of them twice
AXIS = BeforeValidator(_as_list)
#: the same for a leaf that may be left out
OPTIONAL_AXIS = BeforeValidator(lambda value: None if value is None else _as_list(value))


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("is a yes or no; a number is wanted (YAML reads on, yes, off, no so)")
    return value


def within(low: int, high: int | None = None) -> WrapValidator:
    """A whole number in a range, ends included."""

    def check(value: Any, parse: Any) -> int:
        number = int(parse(_no_bool(value)))
        if number < low or (high is not None and number > high):
            limit = f"{low} or more" if high is None else f"{low} to {high}"
            raise ValueError(f"is out of range; allowed: {limit}")
        return number

    return WrapValidator(check)


def _positive(value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError("is out of range; allowed: more than 0")
    return value


def _not_negative(value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError("is out of range; allowed: 0 or more")
    return value


def a_share(value: float) -> float:
    """Raises ValueError for what is no share, or nothing or all."""
    if not 0 < value < 1:
        raise ValueError("is out of range; allowed: more than 0 and less than 1")
    return value


def word_or_share(*words: str) -> AfterValidator:
    """One of some words, or a share of something, neither nothing nor all of it."""

    def check(value: Any) -> Any:
        if value in words:
            return value
        try:
            share = 0.0 if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            share = 0.0
        if not 0 < share < 1:
            allowed = ", ".join(words)
            raise ValueError(f"is no share; allowed: {allowed}, or more than 0 and less than 1")
        return share

    return AfterValidator(check)


def seconds_or_none(value: Any, words: str) -> float | None:
    """None for `none`. Raises ValueError for what is no time, with the words that are allowed."""
    if value in ("none", None):
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < math.inf or isinstance(value, bool):
        raise ValueError(f"is no time; allowed: {words}, or seconds, more than 0")
    return seconds


def at_most(high: float) -> AfterValidator:
    """A number that is not above a bound which no machine reaches."""

    def check(value: float) -> float:
        if value > high:
            raise ValueError(f"is out of range; allowed: at most {high:g}")
        return value

    return AfterValidator(check)


Positive = Annotated[float, BeforeValidator(_no_bool), AfterValidator(_positive)]
NotNegative = Annotated[float, BeforeValidator(_no_bool), AfterValidator(_not_negative)]


def _check_name(value: str) -> str:
    if not NAME_PATTERN.fullmatch(value):
        raise ValueError(
            "is no name; allowed: 1 to 64 of a-z, 0-9, '.', '_', '-', the first a letter or digit"
        )
    return value


Name = Annotated[str, AfterValidator(_check_name)]


def _check_text(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty; give a name")
    if "\0" in value or re.search("[\ud800-\udfff]", value):
        raise ValueError("has a character that no name can have (NUL, or half of a pair)")
    return value


Text = Annotated[str, AfterValidator(_check_text)]


def _check_place(value: str) -> str:
    if value.startswith("/"):
        return value
    if "://" not in value:
        raise ValueError("is no place that every node finds; allowed: an absolute path, or URL")
    from edgesweep.storage.stores import Refused, check_address

    try:
        check_address(value)
    except Refused as error:
        raise ValueError(f"cannot be used: {error}") from None
    return value


#: where all nodes find the same: a path or the address of a store
Place = Annotated[Text, AfterValidator(_check_place)]

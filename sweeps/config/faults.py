"""What is wrong with a config, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import ValidationError

from edgesweep.sweeps.config.features import Features, Regions, Trained
from edgesweep.sweeps.config.fields import Section, did_you_mean


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
}
#: parts of a location that pydantic puts in and no config has
NO_KEYS = ("[key]", "text", "trained")


#: sections of a set of dictionaries
WITHIN_SETS: dict[str, type[Section]] = {"dictionaries": Trained, "regions": Regions}


def describe(error: ValidationError, of: type[Section]) -> str:
    """The first fault of a validation of a config (`of`) as one line: key, value, what is
    allowed."""
    fault = error.errors()[0]
    location = [part for part in fault["loc"] if isinstance(part, str) and part not in NO_KEYS]
    if location[:2] == ["features", "features"]:  # one set without a name
        del location[0]
    key = ".".join(location) or "config"
    kind, value = fault["type"], short(fault.get("input"))
    if kind == "extra_forbidden":
        known = _keys_beside(location, of)
        hint = did_you_mean(location[-1], known) or f"; allowed: {', '.join(known)}"
        return f"unknown key {key!r}{hint}"
    if kind == "missing":
        return f"{key} is missing; give it a value"
    if kind in WANTED:
        return f"{key}: {value} is not {WANTED[kind]}"
    reason = one_line(fault.get("ctx", {}).get("error", fault["msg"]))
    if key == "evaluate":
        key, value = "evaluate.threshold", short(_threshold(fault.get("input")))
    elif key == "execution":
        return f"execution.{reason}"
    return f"{key}: {value} {reason}"


def _threshold(section: Any) -> Any:
    return section.get("threshold") if isinstance(section, dict) else section


def _keys_beside(location: Sequence[str], of: type[Section]) -> list[str]:
    """Known keys of the section that a location lies in."""
    section: Any = of
    for part in location[:-1]:
        if section is Features and part in WITHIN_SETS:
            section = WITHIN_SETS[part]
            break
        if section is not Features:  # whose parts are names of sets
            section = Features if part == "features" else _section(section, part)
    return list(section.model_fields)


def _section(within: Any, key: str) -> Any:
    """A section of another; of one that may be left out, what it is if it is not."""
    told = within.model_fields[key].annotation
    return next((kind for kind in get_args(told) if kind is not type(None)), told)


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

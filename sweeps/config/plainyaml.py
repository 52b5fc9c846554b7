"""YAML as people write configs: small, shallow, plain values.

A few hundred bytes of anchors can stand for terabytes, and a row of brackets for a stack that is
too deep. So values are counted while they are read, those behind an alias as often as they are
meant, and reading stops at the first that is too many.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml

MAX_CHARACTERS = 2**20
MAX_VALUES = 5_000
MAX_DEPTH = 50


class PlainYamlError(ValueError):
    """No YAML, or more of it than a config can need; one line."""


def read_plain(text: str) -> Any:
    """The value that a YAML text stands for. Raises PlainYamlError."""
    if len(text) > MAX_CHARACTERS:
        raise PlainYamlError(f"has more than {MAX_CHARACTERS} characters")
    try:
        return yaml.load(text, Loader=_Loader)
    except PlainYamlError:
        raise
    except yaml.YAMLError as error:
        raise PlainYamlError(f"is no YAML: {_one_line(error)}") from None
    # of constructors: a day that no calendar has, a number of 5,000 digits, `!!bool 7`
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        raise PlainYamlError(f"has a value that YAML cannot read: {_one_line(error)}") from None


class _Loader(yaml.SafeLoader):
    """Counts values and their depth."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._n_values = self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        is_alias, before = self.check_event(yaml.AliasEvent), self._n_values
        self._count(1)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise PlainYamlError(f"is nested more than {MAX_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias:
            self._sizes[id(node)] = self._n_values - before
        elif id(node) not in self._sizes:
            raise PlainYamlError("has an anchor that stands for a part of itself")
        else:
            self._count(self._sizes[id(node)])
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key, n in Counter(keys).items() if n > 1), None)
        if twice is not None:  # YAML forbids it; PyYAML would take the last
            raise PlainYamlError(f"has the key {twice!r} twice in one mapping")
        return node

    def _count(self, n: int) -> None:
        self._n_values += n
        if self._n_values > MAX_VALUES:
            raise PlainYamlError(
                f"has more than {MAX_VALUES} values, aliases counted as written out"
            )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

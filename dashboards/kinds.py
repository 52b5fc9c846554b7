"""Kinds of nodes, as plan.json tells of them: pages know none by name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """How the nodes of some of a run's cells are spoken of (`sweeps.granularity.words`).

    Attributes:
        nodes, many, curves, curves_of_nodes, circuit, methods: as there.
        error: what error terms are in an ablated run; "" where there are none.
        sites: of each model's sites that dictionaries take apart: model, site, dictionary, and the
            shard that trains it.
    """

    nodes: str = "nodes"
    many: bool = False
    curves: str = ""
    curves_of_nodes: str = ""
    circuit: str = ""
    methods: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    error: str = ""
    sites: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Kind":
        """From an entry of `kinds` in plan.json."""
        return cls(**told["words"], error=told.get("error", ""), sites=tuple(told.get("sites", ())))


def together(texts: Iterable[str]) -> str:
    """What is said of several kinds, each text once."""
    return " ".join(dict.fromkeys(filter(None, texts)))

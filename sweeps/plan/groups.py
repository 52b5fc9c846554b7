"""Names of the groups of shards that others wait for."""

from __future__ import annotations


def dictionaries(nodes: str) -> str:
    """All dictionaries of a way to take a model apart (its digest)."""
    return f"dictionaries {nodes}"


def dictionary(model: str, key: str) -> str:
    """One dictionary of a model."""
    return f"dictionary {model} {key}"


def parted(source: str) -> str:
    """The partitions of all sites, on some prompts (`layout.source`)."""
    return f"partitions {source}"


def means(source: str) -> str:
    """Mean values of all groups of prompts (`layout.source`)."""
    return f"means {source}"


def references(source: str) -> str:
    """The full model and the empty circuits, under every patch."""
    return f"references {source}"


def scores(cell: str, member: str = "all") -> str:
    """All scores of a cell, or of one member's inputs."""
    return f"scores {cell} {member}"


def subtrees(cell: str, subset: str) -> str:
    """All subtrees over the partials of a subset of a cell's inputs."""
    return f"subtrees {cell} {subset}"


def reduced(cell: str) -> str:
    """A cell's aggregates, of all inputs and of every member."""
    return f"reduced {cell}"


def candidates(cell: str) -> str:
    """The edges that a refined cell looks at."""
    return f"candidates {cell}"


def circuits(cell: str) -> str:
    """A cell's graph and its circuits."""
    return f"circuits {cell}"


def evaluated(cell: str, condition: str) -> str:
    """All values of a cell's circuits under a condition."""
    return f"evaluated {cell} {condition}"


def asked(search: str, number: int) -> str:
    """The circuits that a round of a search measures."""
    return f"asked {search} {number}"


def answered(search: str, number: int) -> str:
    """All values of a round of a search."""
    return f"answered {search} {number}"


def rebuilt(cell: str) -> str:
    """A cell's circuits of all resamples of its build prompts."""
    return f"rebuilt {cell}"


def probed(cell: str, kind: str) -> str:
    """Which single edges are looked at."""
    return f"probed {cell} {kind}"


def fitted(cell: str) -> str:
    """Which circuit the block model is of."""
    return f"fitted {cell}"


def fits(cell: str) -> str:
    """All chains of a cell's block model."""
    return f"fits {cell}"


def drawn(cell: str, part: str) -> str:
    """What is drawn at random beside a cell's circuit."""
    return f"drawn {cell} {part}"


def blocks(cell: str) -> str:
    """What block ablations leave of a cell's fitted circuit."""
    return f"blocks {cell}"

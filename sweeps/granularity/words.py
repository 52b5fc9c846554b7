"""What a kind of nodes says of itself to who reads a run: plan.json holds it for every name in
`sweep.nodes`, so that pages know no kind by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesweep.sweeps.granularity.base import Nodes
    from edgesweep.sweeps.granularity.featuresets import FeatureSet


@dataclass(frozen=True)
class Words:
    """How a page speaks of nodes of a kind.

    Attributes:
        nodes: what a circuit is a number of.
        many: whether circuits have from ten to thousands of them: sizes are logarithmic, and of a
            long list the strongest are named.
        curves: what lines of faithfulness keep, where circuits run by edge ablation alone; and
            curves_of_nodes: where they run by node ablation too.
        circuit: how a drawn circuit is read.
        methods: method -> its short and its long name, where these are not the usual ones; `{}`
            stands for its steps.
    """

    nodes: str = "nodes"
    many: bool = False
    curves: str = "Solid lines keep the circuit's edges."
    curves_of_nodes: str = (
        "Solid lines keep the circuit's edges; dashed lines keep its nodes with every edge out of "
        "them, which are many more than were selected."
    )
    circuit: str = (
        "Circles are heads, by their number, and an edge into a key or value that heads share ends "
        "at each of them; squares are MLPs; faint dots are nodes outside the circuit."
    )
    methods: Mapping[str, tuple[str, str]] = field(default_factory=dict)


HEADS = Words()

_OF_FEATURES = (
    "Nodes are features of each site's dictionary, and the error that it leaves over. Solid lines "
    "keep the circuit's edges: a feature is computed from the features that an edge joins to it, "
    "and from the patch values of all others. Dashed lines keep its nodes, as sparse feature "
    "circuits do (Marks et al. 2024): all others take their patch value, so every edge that the "
    "sites allow among the kept ones acts, and is counted. A circuit of a method that scores nodes "
    "is those nodes with all edges among them, and so the same by either ablation: its two lines "
    "coincide."
)

FEATURES = Words(
    nodes="features and errors",
    many=True,
    curves=_OF_FEATURES,
    curves_of_nodes=_OF_FEATURES,
    circuit=(
        "Circles are features, a row a site, those with the strongest edges to the left; diamonds "
        "are the errors that dictionaries leave over. Features outside the circuit are not drawn."
    ),
    methods={
        "eap": ("AP edges", "attribution patching of edges between features"),
        "ig_activations": ("IG edges", "integrated gradients of edges between features"),
        "node_ap": (
            "node AP{} (Marks et al.)",
            "attribution patching of features{} (Marks et al.)",
        ),
        "node_ig": (
            "node IG{} (Marks et al.)",
            "integrated gradients of features{} (Marks et al.)",
        ),
    },
)


_OF_REGIONS = (
    "Nodes are regions of the features of each site, and what is in none of them. Solid lines keep "
    "the circuit's edges; dashed lines keep its nodes, and all others take their patch value, so "
    "every edge that the sites allow among the kept ones acts, and is counted. A partition by "
    "attribution is found once, for the first build metric and patch of the run, and is that of "
    "curves of other ones too. Density is of the edges that there can be among the regions found."
)

REGIONS = Words(
    nodes="regions",
    many=True,
    curves=_OF_REGIONS,
    curves_of_nodes=_OF_REGIONS,
    circuit=(
        "Circles are regions, a row a site, those with the strongest edges to the left; diamonds "
        "are what is in no region. Regions outside the circuit are not drawn."
    ),
    methods={
        "eap": ("AP edges", "attribution patching of edges between regions"),
        "ig_activations": ("IG edges", "integrated gradients of edges between regions"),
        "node_ap": ("node AP{}", "attribution patching of regions{}"),
        "node_ig": ("node IG{}", "integrated gradients of regions{}"),
    },
)


def told(ways: Sequence[Nodes]) -> dict[str, Any]:
    """Of the nodes of all models, as plan.json holds it; `sites` where they have dictionaries."""
    found: dict[str, Any] = {"words": asdict(ways[0].words)}
    if sites := [site for nodes in ways for site in nodes.sites()]:
        found |= {"error": ways[0].error, "sites": sites}
    return found


def sites_told(chosen: FeatureSet) -> list[dict[str, Any]]:
    """Of each site its dictionary, in forward order, with the shard that trains it ("" where none
    does)."""
    return [
        {
            "model": chosen.model,
            "site": d.site,
            "n_features": d.n_features,
            "dictionary": d.trained.model_dump(mode="json") if d.trained else d.source,
            "shard": d.key if d.trained else "",
        }
        for d in chosen.dictionaries
    ]

"""What ablations of features have in common: sites, error modes, and the size of a micro-batch."""

from edgesweep.engine.features.model import FeatureModel
from edgesweep.engine.features.values import NodeValues
from edgesweep.engine.graph import FeatureGraph
from edgesweep.engine.network.base import Value

#: what an error term is in a run: a node, or fixed
ERROR_MODES = ("node", "clean", "patch", "zero")

#: what one micro-batch of rows may take
MICRO_BYTES = 256 * 2**20


def check_mode(errors: str) -> None:
    """Raise ValueError where there is no such error mode."""
    if errors not in ERROR_MODES:
        raise ValueError(f"error mode {errors!r} is none of {', '.join(ERROR_MODES)}")


def check_sites(features: FeatureModel, graph: FeatureGraph) -> None:
    """Raise ValueError where a graph is not over these sites."""
    parents = features.all_parents()
    if graph.parents != parents:
        raise ValueError(
            f"the graph is over sites {', '.join(graph.parents)}; the model is read at "
            f"{', '.join(parents)}"
        )


def is_patch_run(patch: NodeValues, errors: str) -> bool:
    """Whether the empty circuit is the run that the patch values come from; then pruning what no
    root feeds changes nothing, too."""
    return patch.from_one_run and errors in ("node", "patch")


def base_of(clean: NodeValues, patch: NodeValues, site: str, errors: str) -> Value:
    """What a target sees of a site of which it keeps nothing: x_patch, and ε_fixed − ε_patch where
    errors are no nodes."""
    if errors == "clean":
        return patch.values(site) + clean.error(site) - patch.error(site)
    return patch.values(site) - (patch.error(site) if errors == "zero" else 0)

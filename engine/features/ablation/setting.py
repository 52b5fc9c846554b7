"""What ablations of features have in common: sites, error modes, and the size of a micro-batch."""

from edgesweep.engine.features.segments import FeatureModel
from edgesweep.engine.features.sites import LOGITS
from edgesweep.engine.features.values import NodeValues
from edgesweep.engine.graph import FeatureGraph
from edgesweep.engine.network import Model
from edgesweep.engine.network.layers import Stream

#: what an error term is in a run: a node, or fixed
ERROR_MODES = ("node", "clean", "patch", "zero")

#: what one micro-batch of rows may take
MICRO_BYTES = 256 * 2**20


def check_mode(errors: str) -> None:
    """Raise ValueError where there is no such error mode."""
    if errors not in ERROR_MODES:
        raise ValueError(f"error mode {errors!r} is none of {', '.join(ERROR_MODES)}")


def site_parents(features: FeatureModel) -> dict[str, tuple[str, ...]]:
    """The parents of every site and of the logits, as `FeatureGraph` takes them."""
    names = [site.name for site in features.sites]
    later = (*names[1:], LOGITS)
    found: dict[str, tuple[str, ...]] = {names[0]: ()}
    return found | {name: tuple(p.name for p in features.parents(name)) for name in later}


def check_sites(features: FeatureModel, graph: FeatureGraph) -> None:
    """Raise ValueError where a graph is not over these sites."""
    parents = site_parents(features)
    if graph.parents != parents:
        raise ValueError(
            f"the graph is over sites {', '.join(graph.parents)}; the model is read at "
            f"{', '.join(parents)}"
        )


def is_patch_run(patch: NodeValues, errors: str) -> bool:
    """Whether the empty circuit is the run that the patch values come from; then pruning what no
    root feeds changes nothing, too."""
    return patch.from_one_run and errors in ("node", "patch")


def base_of(clean: NodeValues, patch: NodeValues, site: str, errors: str) -> Stream:
    """What a target sees of a site of which it keeps nothing: x_patch, and ε_fixed − ε_patch where
    errors are no nodes."""
    if errors == "clean":
        return patch.values(site) + clean.error(site) - patch.error(site)
    return patch.values(site) - (patch.error(site) if errors == "zero" else 0)


def row_bytes(model: Model, n_positions: int) -> int:
    """What a row takes while it passes through one layer: streams, ports and the MLP."""
    config = model.hf.config
    wide = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    wide = wide or 4 * model.d_model
    numbers = 12 * model.d_model + 3 * wide + 2 * model.spec.n_heads * n_positions
    return int(n_positions * numbers * model.layers[0].w_out.element_size())

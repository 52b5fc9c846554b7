"""What cells over features will cost: counted from shapes, and from how many features are active at
a position, which only a trained top-k dictionary says beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesweep.engine.features.ablation.setting import MICRO_BYTES
from edgesweep.engine.methods import METHODS
from edgesweep.engine.network.base import LOGITS
from edgesweep.sweeps.config.features import BASES
from edgesweep.sweeps.stages.base import Passes

if TYPE_CHECKING:
    from edgesweep.sweeps.granularity.featuresets import FeatureSet, SiteDictionary
    from edgesweep.sweeps.plan.cells import Cell
    from edgesweep.sweeps.plan.plan import Plan
    from edgesweep.sweeps.stages.attribute import AttributeShard

#: features active at a position, where the dictionary does not say (Marks et al. 2024)
ACTIVE = 50


def active_at_a_position(dictionary: SiteDictionary) -> int:
    """Features of a site that are not 0 at a position, clean or patched."""
    if dictionary.trained is not None and dictionary.trained.kind == "topk":
        return 2 * min(dictionary.trained.k, dictionary.n_features)
    if dictionary.source == "identity" or dictionary.trained is not None:
        return dictionary.n_features
    return min(2 * ACTIVE, dictionary.n_features)


def passes(plan: Plan, shard: AttributeShard, features: FeatureSet) -> Passes:
    """Forwards and backwards of a micro-batch. Node attribution runs the network downstream of each
    site once a step; an edge's target is pulled back through the layers to its parents, at one
    position in the last of them."""
    cell = shard.cell
    source = plan.model(cell).source
    n_layers, layer_of = source.sizes.n_layers, source.sites.layer
    steps = cell.steps or 1
    downstream = sum(1 - (layer_of(site) + 1) / n_layers for site in features.sites)
    inputs = shard.rows.stop - shard.rows.start
    batches = inputs / plan.config.execution.micro_batch
    nodes = batches * steps * downstream
    if METHODS[cell.method].scores_nodes:
        return Passes(2 * batches + nodes, nodes)
    layers = _pulled_layers(plan, shard, features) * inputs * steps / shard.blocks
    rate = plan.config.execution.micro_batch * n_layers  # layers a forward of a micro-batch
    return Passes(2 * batches + nodes, nodes + layers / rate)


def moved_share(plan: Plan, shard: AttributeShard) -> float:
    """The mean share of an input's positions at which anything can differ from its patch value."""
    if shard.cell.build_patch != "counterfactual":
        return 1.0
    prompts = plan.dataset(shard.cell).data.build[shard.rows.start : shard.rows.stop]
    same = [p.unchanged() / len(p) for p in prompts]
    return 1.0 - sum(same) / len(same)


def _pulled_layers(plan: Plan, shard: AttributeShard, features: FeatureSet) -> float:
    """Whole layers, of one input at all positions, that one step of all its targets is worth."""
    length, share = plan.dataset(shard.cell).length, moved_share(plan, shard)
    layer_of, total = plan.model(shard.cell).source.sites.layer, 0.0
    for dictionary in features.dictionaries[1:]:
        first = layer_of(features.parents[dictionary.site][0])
        below = max(layer_of(dictionary.site) - first - 1, 0)
        targets = share * length * (active_at_a_position(dictionary) + 1)
        # the last layer: the MLP at one position, keys and values at those before it; below it
        # everything between the first position that moved and the target's
        total += targets * (0.5 / length + share * (0.15 + 0.5 * below))
    return total


def training_passes(plan: Plan, model: str, dictionary: SiteDictionary) -> Passes:
    """Forwards of a micro-batch that give the activations, those held out among them, and the
    operations of the training steps: forward and backward of two matrices."""
    trained = dictionary.trained
    assert trained is not None
    tasks = [d for d in plan.resolved.datasets.values() if d.model == model]
    members = {member for dataset in tasks for member in dataset.members}
    prompts = (trained.prompts + plan.config.data.n_eval) * len(members)
    forwards = 2 * prompts / plan.config.execution.micro_batch
    if trained.kind in BASES:
        return Passes(forwards, _pulled_passes(plan, model, dictionary, len(members)))
    flop = 12.0 * trained.steps * trained.batch * dictionary.n_features * dictionary.width
    return Passes(forwards, flop=flop)


def _pulled_passes(plan: Plan, model: str, dictionary: SiteDictionary, n_tasks: int) -> float:
    """Backwards of a micro-batch that the Jacobians of a basis take: one for each direction of what
    it is to act on and each sign, through the layers up to there."""
    if not dictionary.end or dictionary.trained is None:
        return 0.0
    source = plan.resolved.models[model].source
    n_layers, layer_of = source.sizes.n_layers, source.sites.layer
    last = n_layers - 1 if dictionary.end == LOGITS else layer_of(dictionary.end)
    length = max(d.length for d in plan.resolved.datasets.values() if d.model == model)
    each = (dictionary.trained.sources or length) * dictionary.width
    inputs = dictionary.trained.jacobians * n_tasks
    share = (last - layer_of(dictionary.site)) / n_layers
    return inputs * each * share / plan.config.execution.micro_batch


def actor_bytes(plan: Plan, cell: Cell, features: FeatureSet, number_bytes: int) -> int:
    """An actor's memory beside its process: the model, its dictionaries, the features of a
    micro-batch as tables while they are encoded, and the rows of targets or circuits."""
    sizes = plan.model(cell).sizes
    numbers = sum(d.n_features * d.width for d in features.dictionaries)
    widest = max(d.n_features for d in features.dictionaries)
    places = plan.config.execution.micro_batch * plan.dataset(cell).length
    tables = 2 * numbers + 4 * places * widest
    lists = 3 * 40 * features.settings.edges + 24 * (cell.keep or 0)
    return number_bytes * (sizes.n_params + tables) + 4 * MICRO_BYTES + lists

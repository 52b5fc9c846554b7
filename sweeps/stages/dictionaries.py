"""Dictionaries that the run trains itself, before all that reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import safetensors.torch

from edgesweep.engine.dictionaries.base import Dictionary
from edgesweep.engine.dictionaries.files import dictionary_bytes
from edgesweep.engine.training import (
    Baseline,
    Training,
    activations,
    fit_of,
    spliced_losses,
    train,
)
from edgesweep.storage import layout
from edgesweep.storage.blocks import write_file
from edgesweep.sweeps.granularity.feature_cost import training_passes
from edgesweep.sweeps.granularity.featuresets import SiteDictionary
from edgesweep.sweeps.plan import groups
from edgesweep.sweeps.stages.base import Done, Passes, Stage
from edgesweep.tasks import Example, TaskError, build_task

if TYPE_CHECKING:
    from edgesweep.sweeps.actor.context import Context
    from edgesweep.sweeps.plan.plan import Plan

#: texts, about so many, on which a trained dictionary is spliced into the model
SPLICED = 128


@dataclass(frozen=True)
class DictionaryShard:
    """The training of one dictionary of a model."""

    model: str
    dictionary: SiteDictionary

    @property
    def key(self) -> str:
        return self.dictionary.key


class Dictionaries(Stage[DictionaryShard]):
    """One shard a site; sets that share a dictionary share the shard."""

    name = "dictionaries"
    title = "training of dictionaries"
    runs_model = True

    def shards(self, plan: Plan) -> Iterator[DictionaryShard]:
        found: dict[tuple[str, str], DictionaryShard] = {}
        for (model, _), nodes in plan.resolved.nodes.items():
            for dictionary in nodes.trained():
                shard = DictionaryShard(model, dictionary)
                found.setdefault((model, shard.key), shard)
        yield from found.values()

    def groups(self, plan: Plan, shard: DictionaryShard) -> Iterable[str]:
        for (model, _), nodes in plan.resolved.nodes.items():
            if model == shard.model and shard.dictionary in nodes.trained():
                yield groups.dictionaries(nodes.digest)

    def run(self, context: Context, shard: DictionaryShard) -> Done:
        """The dictionary, as a file of its own, and how well it does on what was held out."""
        trained, config = shard.dictionary.trained, context.config
        assert trained is not None
        prompts = [p for task in config.sweep.task for p in _prompts(context, shard, task)]
        texts = list(dict.fromkeys(t for p in prompts for t in (p.clean, p.patch)))
        model, site = context.model(shard.model), shard.dictionary.site
        x = activations(model, site, texts, context.micro_batch)
        told = trained.model_dump(exclude={"prompts"})
        dictionary = train(x.float(), Training(**told, seed=config.seed))
        fit = _fit(context, shard, dictionary, Baseline.of(x.float()), set(texts))
        context.check_alive()
        tensors, metadata = dictionary_bytes(dictionary)
        data = safetensors.torch.save(tensors, metadata)
        write = write_file(context.run, layout.dictionary(shard.key), data)
        return [write], {"fit": fit}

    def passes(self, plan: Plan, shard: DictionaryShard) -> Passes:
        return training_passes(plan, shard.model, shard.dictionary)

    def alike(self, shard: DictionaryShard) -> str:
        return shard.key

    def whose(self, plan: Plan, shard: DictionaryShard) -> str:
        return f"the dictionary of {shard.dictionary.site} of {shard.model}"


def _fit(
    context: Context,
    shard: DictionaryShard,
    dictionary: Dictionary,
    baseline: Baseline,
    trained_on: Collection[Any],
) -> dict[str, Any]:
    """How well it does on the texts of the evaluation prompts, clean and patch, that it was not
    trained on; nothing where there are none."""
    model, site = context.model(shard.model), shard.dictionary.site
    prompts = [
        prompt
        for key, dataset in context.datasets.items()
        if dataset.model == shard.model
        for prompt in context.prompts(key, "eval")
    ]
    texts = dict.fromkeys(t for p in prompts for t in (p.clean, p.patch))
    held = [text for text in texts if text not in trained_on]
    if not held:
        return {"positions": 0}
    x = activations(model, site, held, context.micro_batch).float()
    some = held[:: max(1, len(held) // SPLICED)]
    losses = spliced_losses(model, site, dictionary, some, baseline)
    return asdict(fit_of(dictionary, x, baseline)) | losses


def _prompts(context: Context, shard: DictionaryShard, task: str) -> Sequence[Example]:
    """As many prompts of each member as are asked for, or, of a file with fewer, those of the build
    split; none of the evaluation split, which a file deals out first."""
    trained = shard.dictionary.trained
    assert trained is not None
    keys = [k for k, dataset in context.datasets.items() if dataset.model == shard.model]
    n_eval = Counter(p.task for p in context.prompts(keys[0], "eval")).most_common(1)[0][1]
    source = context.sources[shard.model]
    try:
        data = build_task(
            task,
            source.tokenizer(),
            trained.prompts,
            n_eval,
            context.config.seed,
            n_vocab=source.sizes.n_vocab,
            own=source.path,
            shape=source.shape,
        )
    except TaskError:  # a file with fewer prompts
        return tuple(p for key in keys for p in context.prompts(key, "build"))
    return data.build

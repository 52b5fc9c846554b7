"""Dictionaries that the run trains itself, before all that reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import safetensors.torch
import torch

from edgesweep.engine.bases.rotation import Cut
from edgesweep.engine.dictionaries.base import Dictionary, Linear
from edgesweep.engine.dictionaries.files import dictionary_bytes
from edgesweep.engine.training import (
    Baseline,
    BasisTraining,
    Training,
    activations,
    fit_of,
    interaction_directions,
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

Item = TypeVar("Item")

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
        yield groups.dictionary(shard.model, shard.key)

    def needs(self, plan: Plan, shard: DictionaryShard) -> tuple[str, ...]:
        end = shard.dictionary.end_key
        return (groups.dictionary(shard.model, end),) if end else ()

    def run(self, context: Context, shard: DictionaryShard) -> Done:
        """The dictionary, as a file of its own, and how well it does on what was held out."""
        trained, config = shard.dictionary.trained, context.config
        assert trained is not None
        prompts = [_prompts(context, shard, task) for task in config.sweep.task]
        texts = list(dict.fromkeys(t for of in prompts for p in of for t in (p.clean, p.patch)))
        directions = _directions(context, shard, prompts, texts) if shard.dictionary.end else None
        model, site = context.model(shard.model), shard.dictionary.site
        x = activations(model, site, texts, context.micro_batch)
        told = trained.model_dump(exclude={"prompts", "jacobians", "sources"})
        dictionary = directions or train(x.float(), Training(**told, seed=config.seed))
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


def _directions(
    context: Context,
    shard: DictionaryShard,
    prompts: Sequence[Sequence[Example]],
    texts: Sequence[Any],
) -> Linear:
    """The basis of a site by what acts on what."""
    wanted, config = shard.dictionary, context.config
    assert wanted.trained is not None
    some = [p.clean for of in prompts for p in spread(of, wanted.trained.jacobians)]
    how = BasisTraining(
        site=wanted.site,
        end=wanted.end,
        features=wanted.n_features,
        sources=wanted.trained.sources,
        cut=Cut(**config.bases.cut.model_dump()),
        seed=config.seed,
    )
    end = context.dictionary_of(wanted.end_key, wanted.width) if wanted.end_key else None
    assert end is None or isinstance(end, Linear)
    model = context.model(shard.model, "float64")
    found = interaction_directions(model, texts, some, how, end, context.micro_batch)
    return found.to(dtype=torch.float32)


def spread(items: Sequence[Item], n: int) -> Sequence[Item]:
    """So many of them at most, at equal distances."""
    return [items[i * len(items) // n] for i in range(n)] if n < len(items) else items


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
            context=context.config.data.context,
        )
    except TaskError:  # a file with fewer prompts
        return tuple(p for key in keys for p in context.prompts(key, "build"))
    return data.build

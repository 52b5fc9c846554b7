"""`edgesweep train dictionary`: from a model to a dictionary of one of its sites.

1. Activations of the site over prompts of tasks (clean and patch), or the first `CONTEXT` tokens of
   each line of a text file; a tenth of the texts is held out. All are in memory at once.
2. `engine.training.dictionaries.train`.
3. On what was held out, without sinks: variance explained, L0, dead share, and the loss recovered
   when the site's value is replaced by what the dictionary makes of it, beside what it loses at
   its median (`engine.training.fits`).

The dictionary is written whole or not at all, with the report beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from edgesweep.engine.dictionaries.base import DictionaryError
from edgesweep.engine.dictionaries.files import dictionary_bytes
from edgesweep.engine.model import ModelError, ModelSource, load_model, resolve_model
from edgesweep.engine.network import Model
from edgesweep.engine.network.base import SiteError
from edgesweep.engine.training import (
    Baseline,
    Training,
    activations,
    check_training,
    fit_of,
    spliced_losses,
    train,
)
from edgesweep.storage.atomic import replace, to_json
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.progress import Progress
from edgesweep.tasks import TaskError, build_task

#: a text in tokens, or the numbers of an array
Tokens = tuple[Any, ...]
#: one text in so many is held out
HELD_OUT = 10
#: tokens of a line that are read
CONTEXT = 256


@dataclass(frozen=True)
class Request:
    """What the command was asked.

    Attributes:
        texts: a text file, one text a line; None: prompts of `tasks`.
        prompts: of each task.
        out: the file; its report goes beside it, `.json` appended.
    """

    model: str
    site: str
    how: Training
    tasks: Sequence[str]
    texts: Path | None
    prompts: int
    out: Path


def train_dictionary(request: Request, progress: Progress) -> dict[str, Any]:
    """Train, measure and write.

    Returns:
        The report.

    Raises:
        ConfigError: one line; nothing was written.
    """
    _check_out(request.out)
    try:
        check_training(request.how)
        source = resolve_model(request.model)
        source.sites.chosen([request.site])
        tokens = _tokens(request, source)
    except (DictionaryError, ModelError, SiteError, TaskError) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    if len(tokens) < 2 * HELD_OUT:
        raise ConfigError(f"{len(tokens)} different texts are too few; give {2 * HELD_OUT} or more")
    held = [t for i, t in enumerate(tokens) if i % HELD_OUT == 0]
    kept = [t for i, t in enumerate(tokens) if i % HELD_OUT]
    model = load_model(source, "cuda" if torch.cuda.is_available() else "cpu")
    n_tokens = len(tokens) if source.shape else sum(map(len, tokens))
    progress.say(
        f"{len(kept)} texts to train on, {len(held)} held out; {n_tokens} tokens, "
        f"{n_tokens * source.sites.width(request.site) * 4 / 2**20:.0f} MiB of activations"
    )
    try:
        return _train(request, model, kept, held, progress)
    except DictionaryError as error:
        raise ConfigError(str(error)) from None


def _check_out(out: Path) -> None:
    """Refuse what cannot be written, before the hours and not after."""
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out: {str(out)!r} must end in .safetensors")
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder; name a file in it")
    above = next(p for p in out.absolute().parents if p.exists())
    if not above.is_dir():
        raise ConfigError(f"--out: {above} is a file; choose another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"--out: {above} cannot be written; choose another folder")


def _tokens(request: Request, source: ModelSource) -> list[Tokens]:
    """Distinct texts in tokens, in order of appearance."""
    tokenizer = source.tokenizer()
    if request.texts is not None:
        return _lines(request.texts, tokenizer, source)
    found: list[Tokens] = []
    for task in request.tasks:
        data = build_task(
            task,
            tokenizer,
            request.prompts,
            0,
            request.how.seed,
            n_vocab=source.sizes.n_vocab,
            own=source.path,
            shape=source.shape,
        )
        found += [t for p in data.build for t in (p.clean, p.patch)]
    return list(dict.fromkeys(found))


def _lines(file: Path, tokenizer: Any, source: ModelSource) -> list[Tokens]:
    """Lines of a file of two tokens or more, cut where the model or `CONTEXT` ends."""
    if tokenizer is None:
        raise ConfigError(f"--text: model {source.name!r} has no tokenizer")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--text: {file} cannot be read: {error}") from None
    limit = min(getattr(source.config, "max_position_embeddings", None) or CONTEXT, CONTEXT)
    found = (
        tuple(tokenizer(line, truncation=True, max_length=limit)["input_ids"])
        for line in lines
        if line.strip()
    )
    return [t for t in dict.fromkeys(found) if len(t) > 1]


def _train(
    request: Request, model: Model, kept: list[Tokens], held: list[Tokens], progress: Progress
) -> dict[str, Any]:
    x = activations(model, request.site, kept).float()

    def say(step: int, loss: float) -> None:
        progress.say(f"step {step} of {request.how.steps}: loss {loss:.4g}")

    dictionary = train(x, request.how, say)
    held_out = activations(model, request.site, held).float()
    baseline = Baseline.of(x)
    losses = spliced_losses(model, request.site, dictionary, held, baseline)
    report = {
        "model": request.model,
        "site": request.site,
        "texts": str(request.texts or "+".join(request.tasks)),
        **asdict(request.how),
        "features": dictionary.n_features,
        "tokens": len(x),
        "tokens_held_out": len(held_out),
        **asdict(fit_of(dictionary, held_out, baseline)),
        **losses,
        "digest": dictionary.digest,
    }
    tensors, told = dictionary_bytes(dictionary)
    replace(request.out, safetensors.torch.save(tensors, told))
    replace(request.out.with_name(request.out.name + ".json"), to_json(report))
    return report


def told(report: dict[str, Any]) -> str:
    """The report in one line."""
    return json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in report.items()})

"""What `edgesweep list` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import yaml

from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import PRESETS, preset_names
from edgesweep.sweeps.config.schema import FEATURE_METHODS

DEFAULT_MODEL = "smollm2-135m"


def models() -> Iterator[str]:
    """Aliases, and the other ways to name a model."""
    from edgesweep.engine.model import list_models

    for model in list_models():
        yield f"{model.name:<16}{model.description}"


def tasks() -> Iterator[str]:
    """Tasks with an example each."""
    from edgesweep.tasks import list_tasks

    for task in list_tasks():
        yield f"{task.name:<16}{task.description}"
        yield f"{'':<16}clean: {task.clean!r}  good: {task.good!r}  bad: {task.bad!r}"
        yield f"{'':<16}patch: {task.patch!r}"
    yield f"{'own':<16}the prompts in the model's own folder (prompts.jsonl), if it brings some"
    yield f"{'a+b+c':<16}a mixture of tasks"
    yield f"{'FILE.jsonl':<16}your own: a line a prompt with clean, patch, good, bad; or an array"
    yield f"{'./FILE.txt':<16}a text, in windows of data.context tokens"
    yield f"{'./FOLDER/':<16}your images: a folder a class, or .parquet files of bytes and label"


def methods(model: str = DEFAULT_MODEL) -> Iterator[str]:
    """Attribution methods with their sources, and what a batch costs them on a model."""
    from edgesweep.engine.graph import EdgeGraph
    from edgesweep.engine.methods import METHODS, Settings
    from edgesweep.engine.model import ModelError, resolve_model

    try:
        graph = EdgeGraph(resolve_model(model).spec)
    except ModelError as error:
        raise ConfigError(f"--model: {error}") from None
    settings = Settings()
    yield f"cost of one batch on {model} ({graph.n_edges:,} edges), patch run included:"
    for method in METHODS.values():
        takes = f"; takes {', '.join(sorted(method.takes))}" if method.takes else ""
        cost = method.passes(graph, settings, "counterfactual")
        steps = f", {settings.steps} steps" if "steps" in method.takes else ""
        takes += "; also over features" if method.name in FEATURE_METHODS else ""
        yield f"{method.name:<22}{method.summary} ({method.source}{takes})"
        yield (
            f"{'':<22}cost: {cost.forwards:,.4g} forwards, {cost.backwards:,.4g} backwards{steps}"
        )


def presets() -> Iterator[str]:
    """Presets with what their files say of them."""
    for name in preset_names():
        text = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
        about = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
        raw = yaml.safe_load(text)
        yield f"{name:<16}{about} (model {raw['sweep']['model']})"


LISTINGS: dict[str, Callable[[], Iterator[str]]] = {
    "models": models,
    "tasks": tasks,
    "methods": methods,
    "presets": presets,
}

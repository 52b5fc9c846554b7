"""A folder that holds a plain model with its task: weights, prompts (task `own`), known circuit."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesweep.engine.graph.known import KnownCircuit
from edgesweep.engine.network.plain import PlainForCausalLM
from edgesweep.tasks import OWN_PROMPTS


@dataclass(frozen=True)
class OwnPrompt:
    """A line of the task's file; the fields are those of `tasks.Prompt`."""

    clean: tuple[int, ...]
    patch: tuple[int, ...]
    good: tuple[int, ...]
    bad: tuple[int, ...]
    template: str
    labels: dict[str, int]


def write_folder(
    folder: Path, hf: PlainForCausalLM, prompts: Sequence[OwnPrompt], circuit: KnownCircuit
) -> None:
    """Write all that `edgesweep run` needs of a model whose circuit is known."""
    hf.save_pretrained(folder)
    lines = [json.dumps(vars(prompt)) for prompt in prompts]
    (folder / OWN_PROMPTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    circuit.save(folder)

"""Draws the prompts of a built-in task, with a seed, into two splits that share no clean prompt.

1. The content of a clean prompt alone, hashed with the task and the seed, decides which split it
   may enter. So the splits are disjoint whatever their sizes, and asking for more build prompts
   leaves the evaluation prompts as they are. Where patches are clean prompts of others (a task of
   mirrors), the first of the two decides for both.
2. A random stream of its own for each (task, seed, split) goes round the task's variants and draws
   from each in turn.
3. A draft becomes a prompt only if the tokenizer keeps it aligned: equally many tokens, not all of
   them alike, key words at the same positions in clean and patch, every answer one token, nothing
   unknown. Others are skipped. A variant that yields nothing new in a long row of draws is given
   up.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterator

from edgesweep.tasks.drafts import Draft, Drawer, Generator
from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.example import TaskError
from edgesweep.tasks.prompt import Prompt

BUILD, EVALUATION = "build", "evaluation"
_DRAWS_BEFORE_GIVING_UP = 300

Ids = tuple[int, ...]


def sample(
    generator: Generator, encoder: Encoder, split: str, n: int, seed: int
) -> Iterator[Prompt]:
    """Draws n different prompts of a split, one after another.

    Raises:
        TaskError: where the tokenizer leaves fewer than n; says how many there were.
    """
    name = generator.info.name
    rng = random.Random(_digest(name, seed, split))
    waiting = deque(generator.drawers(encoder).values())
    found: set[int] = set()

    def is_wanted(clean: Ids, patch: Ids) -> bool:
        decides = min(clean, patch) if generator.mirrored else clean
        return _digest(*clean) not in found and split_of(name, seed, decides) == split

    while len(found) < n and waiting:
        drawer = waiting.popleft()
        prompt = _draw(drawer, rng, encoder, name, is_wanted)
        if prompt is not None:
            found.add(_digest(*prompt.clean))
            waiting.append(drawer)
            yield prompt
    if len(found) < n:
        raise TaskError(
            f"task {name}: only {len(found)} of {n} {split} prompts could be had with this "
            f"tokenizer; lower n_build and n_eval, or use another task or model"
        )


def to_prompt(
    draft: Draft,
    encoder: Encoder,
    task: str,
    is_wanted: Callable[[Ids, Ids], bool],
) -> Prompt | None:
    """The prompt of a draft; None where its ids (clean, patch) are not wanted or nothing keeps
    aligned."""
    clean, patch = encoder.encode(draft.clean.text), encoder.encode(draft.patch.text)
    labels = {key: clean.position(draft.clean.slots[slot]) for key, slot in draft.labels.items()}
    moved = {key: patch.position(draft.patch.slots[slot]) for key, slot in draft.labels.items()}
    aligned = len(clean.ids) == len(patch.ids) and clean.ids != patch.ids and labels == moved
    if not aligned or not encoder.knows(clean.ids + patch.ids):
        return None
    if not is_wanted(clean.ids, patch.ids):
        return None
    good = encoder.answers(draft.clean.text, draft.good)
    bad = encoder.answers(draft.clean.text, draft.bad)
    if good is None or bad is None:
        return None
    return Prompt(
        clean=clean.ids,
        patch=patch.ids,
        good=good,
        bad=bad,
        task=task,
        template=draft.template,
        labels=labels | {"end": len(clean.ids) - 1},
        clean_text=draft.clean.text,
        patch_text=draft.patch.text,
    )


def split_of(task: str, seed: int, decides: Ids) -> str:
    """The split that a prompt belongs to: a coin thrown by the content of what decides."""
    return (BUILD, EVALUATION)[_digest(task, seed, *decides) % 2]


def _draw(
    drawer: Drawer,
    rng: random.Random,
    encoder: Encoder,
    task: str,
    is_wanted: Callable[[Ids, Ids], bool],
) -> Prompt | None:
    """The variant's next prompt that is aligned and wanted; None where it seems to have run dry."""
    for _ in range(_DRAWS_BEFORE_GIVING_UP):
        prompt = to_prompt(drawer(rng), encoder, task, is_wanted)
        if prompt is not None:
            return prompt
    return None


def _digest(*parts: object) -> int:
    """A number from the parts, the same in every process (the built-in hash is not)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

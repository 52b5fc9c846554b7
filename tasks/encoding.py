"""From text to token ids: what a tokenizer makes of a prompt, of an answer, and of a key word.

An answer is never tokenized alone: it is what the tokenizer adds to the prompt when the answer is
appended to it, because that is what the model sees and would have to write.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgesweep.tasks.example import TaskError

# A word that stands before another when asking whether the other is one token inside a sentence.
_CARRIER = "the"


@dataclass(frozen=True)
class Encoded:
    """Token ids of a text, and for each the span of characters it covers (empty for a BOS)."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    def position(self, character: int) -> int:
        """The token that covers the character; the last such, where bytes share a character."""
        covering = [i for i, (start, end) in enumerate(self.spans) if start <= character < end]
        if not covering:
            raise TaskError(f"the tokenizer gives no token for character {character} of the text")
        return covering[-1]


class Encoder:
    """A tokenizer as the tasks use it: no padding, no end token, exactly one BOS where it adds one.

    Raises:
        TaskError: where the tokenizer has no character offsets (a slow tokenizer).
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise TaskError(
                f"tokenizer {type(tokenizer).__name__} gives no character offsets; "
                "use a fast tokenizer (with a tokenizer.json), or token ids in a JSONL task"
            )
        self._tokenizer = tokenizer
        self._unknown: int | None = tokenizer.unk_token_id
        self._prefix = _default_prefix(tokenizer)

    @property
    def prefix(self) -> tuple[int, ...]:
        """The BOS that begins every text; nothing where there is none."""
        return self._prefix

    def tokens(self, text: str) -> tuple[int, ...]:
        """The ids of a text of any length, without a BOS."""
        return tuple(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def text(self, ids: tuple[int, ...]) -> str:
        """What ids spell."""
        found: str = self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return found

    def encode(self, text: str) -> Encoded:
        """Tokenizes a text; spans are in characters of the text."""
        output = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = tuple(output["input_ids"])
        spans = tuple((start, end) for start, end in output["offset_mapping"])
        if self._prefix and ids[:1] != self._prefix:
            ids, spans = self._prefix + ids, ((0, 0), *spans)
        return Encoded(ids, spans)

    def knows(self, ids: tuple[int, ...]) -> bool:
        """Whether none of the ids is the tokenizer's unknown token."""
        return self._unknown is None or self._unknown not in ids

    def answers(self, text: str, answers: Iterable[str]) -> tuple[int, ...] | None:
        """The id that each answer adds to the text; None where one is not exactly one known token.

        An answer that changes how the text itself is split is none: the model never sees that.
        """
        before = self.encode(text).ids
        found: list[int] = []
        for answer in answers:
            after = self.encode(text + answer).ids
            added = after[len(before) :]
            if not _begins(after, before) or len(added) != 1 or not self.knows(added):
                return None
            found += added
        return tuple(found)

    def is_apart(self, text: str, answer: str) -> bool:
        """Whether the text keeps its own tokens when the answer is appended to it."""
        return _begins(self.encode(text + answer).ids, self.encode(text).ids)

    def is_single(self, *words: str) -> bool:
        """Whether each word, with a space before it, is one token inside a sentence."""
        return self.answers(_CARRIER, [f" {word}" for word in words]) is not None

    def pieces(self, text: str) -> list[str]:
        """The text as the tokenizer splits it, one string a token."""
        return [text[start:end] for start, end in self.encode(text).spans if end > start]


def _begins(ids: tuple[int, ...], start: tuple[int, ...]) -> bool:
    return ids[: len(start)] == start


def _default_prefix(tokenizer: Any) -> tuple[int, ...]:
    """The BOS, where the tokenizer puts one before a text by itself."""
    first = tokenizer(_CARRIER)["input_ids"][:1]
    is_bos = tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
    return tuple(first) if is_bos else ()

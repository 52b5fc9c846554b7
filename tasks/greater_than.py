"""Greater-than: a span of years must end after it began.

    clean   The war lasted from the year 1743 to the year 17    -> 44 to 99, not 00 to 42
    patch   The war lasted from the year 1701 to the year 17

**What is an answer depends on how the tokenizer splits a year.** The end year is cut at one of the
tokenizer's own boundaries, and the prompt ends there, with the same digits as the start year (the
*stem*). The answer is the one token that comes next. The cut is the first boundary that leaves a
stem of two digits or more, else the last:

    split       stem   answer token          year 1743, stem, good, bad
    1|7|4|3     17     the decade digit      17   5..9       0..3
    17|43       17     decade and year       17   44..99     00..42
    174|3       174    the year's digit      174  4..9       0..2
    1|743       1      three digits          1    744..999   000..742

**Good** are the answers greater than the start year's own digits at that place, **bad** the smaller
ones. The equal one is neither: after 1743, "17|4" may still become 1749 or 1741, and a span that
ends in the year of its beginning is no clear error. Start years for which one side would be
empty are not drawn. Answers that the tokenizer would not write this way (GPT-2 has one token for
1776) are in neither set, and such years are not drawn.

**Patch**: the start year's digits after the stem become 01 (0 where only one digit is left), as in
Hanna et al.: every end year is then acceptable, and the length is kept. The stem stays, so what
is taken away is the lower bound and nothing else. (Dhimoïla, appendix D.3, changes the century and
decade digits instead, which also changes the stem that the prompt repeats.)

Labels: ``noun``; ``XX``, the last token of the start year's stem; ``YY``, its token that the answer
is compared with; ``end``, the last token of the repeated stem.

Source: Hanna, Liu and Variengien, 2023, for the task and the patch.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from edgesweep.tasks.drafts import Draft, Drawer, Generator, fill, fixed_text
from edgesweep.tasks.encoding import Encoder
from edgesweep.tasks.example import TaskError
from edgesweep.tasks.prompt import TaskInfo

FRAMES = {
    "lasted": "The {noun} lasted from the year {XX}{YY}{rest} to the year {stem}",
    "began": "The {noun} began in the year {XX}{YY}{rest} and ended in {stem}",
    "ran": "The {noun} ran from the year {XX}{YY}{rest} to the year {stem}",
}
NOUNS = (
    *("war", "conflict", "siege", "campaign", "crisis", "expedition", "dispute", "trial"),
    *("project", "journey", "strike", "rebellion", "marriage", "alliance", "dynasty", "trade"),
)
YEARS = range(1000, 1900)

_CARRIER = "the year"
_N_DIGITS = 4


@dataclass(frozen=True)
class YearSplit:
    """How a tokenizer writes years: ``stem`` digits, then an answer token of ``width`` digits.

    ``written`` holds the years that it writes so, as text.
    """

    stem: int
    width: int
    written: frozenset[str]

    def place(self, year: str) -> tuple[str, str, str]:
        """A year as (stem, compared digits, rest)."""
        cut = self.stem + self.width
        return year[: self.stem], year[self.stem : cut], year[cut:]

    def answers(self, stem: str) -> list[str]:
        """All answers after this stem, as digits, in ascending order."""
        return sorted({self.place(year)[1] for year in self.written if year.startswith(stem)})

    def baseline(self, year: str) -> str:
        """The start year of the patch, after which every end year with this stem can follow."""
        n_left = _N_DIGITS - self.stem
        return year[: self.stem] + ("0" if n_left == 1 else "1".zfill(n_left))


def year_split(encoder: Encoder) -> YearSplit:
    """Finds the tokenizer's most frequent split of years, and the cut that the docstring defines.

    Raises:
        TaskError: where the tokenizer makes one token of most years: nothing is left to answer.
    """
    splits = {str(year): _boundaries(encoder, str(year)) for year in YEARS}
    boundaries, _ = Counter(splits.values()).most_common(1)[0]
    if len(boundaries) == 1:
        raise TaskError(
            "task greater_than: this tokenizer makes one token of a year such as 1743, so no "
            "digits are left to be the answer; use another task or model"
        )
    stem = next((cut for cut in boundaries[:-1] if cut >= _N_DIGITS // 2), boundaries[-2])
    width = boundaries[boundaries.index(stem) + 1] - stem
    return YearSplit(
        stem, width, frozenset(year for year, found in splits.items() if found == boundaries)
    )


def _boundaries(encoder: Encoder, year: str) -> tuple[int, ...]:
    """Where the tokens of the year end, in digits: (2, 4) for 17|43."""
    ends = (end for _, end in encoder.encode(f"{_CARRIER} {year}").spans)
    first_digit = len(_CARRIER) + 1
    return tuple(end - first_digit for end in ends if end > first_digit)


def _drawers(encoder: Encoder) -> Mapping[str, Drawer]:
    split = year_split(encoder)
    starts = [year for year in sorted(split.written) if _is_start(split, year)]
    nouns = [noun for noun in NOUNS if encoder.is_single(noun)]
    if not starts or not nouns:
        raise TaskError(
            f"task greater_than: {len(starts)} of {len(YEARS)} years and {len(nouns)} of "
            f"{len(NOUNS)} nouns can be used with this tokenizer; it needs 1 of each: "
            "use another task or model"
        )
    return {template: partial(_draft, template, split, starts, nouns) for template in FRAMES}


def _is_start(split: YearSplit, year: str) -> bool:
    """Whether there are answers on both sides, and the patch can be written in the same way."""
    stem, compared, _ = split.place(year)
    baseline = split.baseline(year)
    lower, upper = split.place(baseline)[1], split.answers(stem)[-1]
    return baseline in split.written and lower < compared < upper


def _draft(
    template: str, split: YearSplit, starts: list[str], nouns: list[str], rng: random.Random
) -> Draft:
    year, noun = rng.choice(starts), rng.choice(nouns)
    stem, compared, rest = split.place(year)
    _, patch_compared, patch_rest = split.place(split.baseline(year))
    answers = split.answers(stem)
    words = {"noun": noun, "XX": stem, "stem": stem}
    return Draft(
        template=template,
        clean=fill(FRAMES[template], YY=compared, rest=rest, **words),
        patch=fill(FRAMES[template], YY=patch_compared, rest=patch_rest, **words),
        good=tuple(answer for answer in answers if answer > compared),
        bad=tuple(answer for answer in answers if answer < compared),
        labels={"noun": "noun", "XX": "XX", "YY": "YY"},
    )


def _lexicon() -> Iterator[str]:
    for frame in FRAMES.values():
        yield from fixed_text(frame)
    for noun in NOUNS:
        yield f" {noun}"
    yield " 0123456789"


GREATER_THAN = Generator(
    info=TaskInfo(
        name="greater_than",
        description="a span of years ends after it began: the digits that come next are greater",
        clean="The war lasted from the year 1743 to the year 17",
        patch="The war lasted from the year 1701 to the year 17",
        good="44 to 99 (5 to 9 where a token is one digit)",
        bad="00 to 42 (0 to 3 where a token is one digit)",
    ),
    drawers=_drawers,
    lexicon=_lexicon,
)

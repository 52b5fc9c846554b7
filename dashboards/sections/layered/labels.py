"""What directions are of."""

from collections.abc import Iterator
from html import escape

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import varying
from edgesweep.dashboards.pages import Section, Table

#: directions of a layer that are told, and over how many first terms are averaged
TOLD, AVERAGED = 5, 10
#: a second term of a smaller share is not told
LITTLE = 0.01


def section(data: RunData) -> Iterator[Section]:
    """The labels of each layer's first directions."""
    labels = data.layered.get("labels", pd.DataFrame())
    if labels.empty:
        return
    fourier = labels[labels["kind"] == "fourier"]
    words = labels[labels["kind"] != "fourier"]
    if not words.empty:
        yield _of_text(words)
    if fourier.empty:
        return
    yield Section(
        "labels",
        "What directions are of",
        "The Fourier terms that a direction's activations on all inputs are made of, with their "
        "shares of the power, phases ignored (Bushnaq et al. 2024, appendix F), of the most "
        f"important directions. <i>First term</i>: its mean share over the first {AVERAGED}, by "
        "which a direction is of one thing or of many.",
        (_table(fourier),),
    )


def _of_text(labels: pd.DataFrame) -> Section:
    return Section(
        "words",
        "What directions of the language model are of",
        "Of the most important directions: <i>position</i>, the share of their variance that lies "
        "between positions; <i>at</i>, the tokens at which they vary most, with their shares of "
        "the variance and the sign there; <i>writes</i>, the tokens whose logits they would move "
        "most if later layers only passed them on, with shares of the squared logits.",
        (_text_table(labels),),
    )


def _share(share: float) -> str:
    """Of tens of thousands of tokens one has little."""
    return f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"


def _text_table(labels: pd.DataFrame) -> Table:
    told = varying(labels, ("model", "task"))
    rows = []
    for _, mine in labels[labels["direction"] < TOLD].groupby(
        ["model", "task", "layer", "basis", "direction"], sort=False
    ):
        first = mine.iloc[0]
        by_kind = {kind: of.sort_values("rank") for kind, of in mine.groupby("kind")}
        words = [
            ", ".join(
                f"<code>{escape(row['term'])}</code>&nbsp;{_share(row['share'])}"
                for row in by_kind[kind].to_dict("records")
            )
            if kind in by_kind
            else ""
            for kind in ("at", "writes")
        ]
        share = f"{by_kind['position']['share'].iloc[0]:.0%}" if "position" in by_kind else ""
        fixed = [escape(str(first[c])) for c in (*told, "node", "basis")]
        rows.append([*fixed, share, *words])
    return Table([*told, "direction", "basis", "position", "at", "writes"], rows, (len(told) + 2,))


def _table(labels: pd.DataFrame) -> Table:
    told = varying(labels, ("model", "task"))
    rows = []
    for key, mine in labels.groupby(["model", "task", "layer", "basis"], sort=False):
        about = dict(zip(("model", "task", "layer", "basis"), key, strict=True))
        first = mine[(mine["rank"] == 0) & (mine["direction"] < AVERAGED)]
        words = [_words(mine[mine["direction"] == n]) for n in range(TOLD)]
        fixed = [escape(str(about[c])) for c in (*told, "layer", "basis")]
        rows.append([*fixed, f"{first['share'].mean():.0%}", *words])
    head = [*told, "layer", "basis", "first term", *(f"d{n}" for n in range(TOLD))]
    return Table(head, rows, (len(told) + 2,))


def _words(terms: pd.DataFrame) -> str:
    """The largest term, and the second where there is one to speak of."""
    first = terms.sort_values("rank").head(2)
    two = first[(first["rank"] == 0) | (first["share"] >= LITTLE)].to_dict("records")
    return "<br>".join(f"{row['share']:.0%}&nbsp;{escape(row['term'])}" for row in two)

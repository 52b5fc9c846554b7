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
    yield Section(
        "labels",
        "What directions are of",
        "The Fourier terms that a direction's activations on all inputs are made of, with their "
        "shares of the power, phases ignored (Bushnaq et al. 2024, appendix F), of the most "
        f"important directions. <i>First term</i>: its mean share over the first {AVERAGED}, by "
        "which a direction is of one thing or of many.",
        (_table(labels),),
    )


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

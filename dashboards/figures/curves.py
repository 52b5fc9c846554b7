"""Faithfulness against size: the run's main figure (Dhimoïla figures 10 and 11)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from edgesweep.dashboards.kinds import Kind
from edgesweep.dashboards.series import Menu, menus, meta, with_series
from edgesweep.dashboards.style import (
    DASHES,
    SPARE_COLOURS,
    SYMBOLS,
    Mark,
    log_ticks,
    marks,
    styled,
)

Axes = Mapping[str, tuple[str, str]]
#: x column -> axis title, log or linear
AXES: Axes = {
    "n_edges": ("edges in the circuit", "log"),
    "n_nodes": ("nodes in the circuit", "linear"),
    "average_degree": ("average degree, 2 E / N", "log"),
}
#: beside them, where kinds of nodes are compared: numbers of edges of different graphs are not
SHARE = {"density": ("share of the edges that its nodes could have", "log")}
#: points in one figure, over all that its menus can choose
MAX_POINTS = 50_000
HOVER_COLUMNS = ("n_edges", "n_nodes", "average_degree", "value", "value_full", "value_empty")
#: what all lines share, said once: a large run has thousands of them
LOOKS = {
    "mode": "lines+markers",
    "line": {"width": 2},
    "marker": {"size": 7},
    "hovertemplate": (
        "<b>%{fullData.name}</b><br>φ %{y:.3f}<br>%{customdata[0]:,} edges, %{customdata[1]:,} "
        "nodes, degree %{customdata[2]:.1f}<br>value %{customdata[3]:.4g} "
        "(model %{customdata[4]:.4g}, empty %{customdata[5]:.4g})<extra></extra>"
    ),
}


def axes_of(kinds: Iterable[Kind]) -> Axes:
    """The axes of results whose nodes are of these kinds."""
    kinds = list(kinds)
    nodes = {(f"{kind.nodes} in the circuit", "log" if kind.many else "linear") for kind in kinds}
    axes = {**AXES, "n_nodes": nodes.pop()} if len(nodes) == 1 else AXES
    return axes if len(kinds) < 2 else {**axes, **SHARE}


def marks_of_variants(table: pd.DataFrame) -> dict[str, Mark]:
    """Marks of lines that their variants tell apart, by `series`: where each variant is of one
    method and a method has several, which would all have its colour; else none."""
    pairs = table[["method_name", "variant", "series"]].drop_duplicates()
    n_methods, n_variants = pairs["method_name"].nunique(), pairs["variant"].nunique()
    if not n_methods < len(pairs) == n_variants <= len(SPARE_COLOURS):
        return {}
    names = sorted(pairs["series"])
    return {n: Mark(SPARE_COLOURS[i], SYMBOLS[i]) for i, n in enumerate(names)}


@dataclass(frozen=True)
class Line:
    """One line: what its menus choose it by, its looks, and its points."""

    meta: dict[str, str]
    method: str
    variant: str
    ablation: str
    rows: pd.DataFrame

    @property
    def series(self) -> str:
        return " · ".join(filter(None, (self.method, self.variant)))

    @property
    def name(self) -> str:
        return f"{self.series}, {self.ablation} ablation"


def thinned(results: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Whole circuits' results within MAX_POINTS, and a sentence saying what is not shown."""
    table = results[results["blocks"] == "all"]
    if len(table) <= MAX_POINTS:
        return table, ""
    overall = table[table["subset"] == "all"].head(MAX_POINTS)
    return overall, (
        f"This run measured {len(table):,} points; the figures hold {len(overall):,} of them, over "
        "all inputs. The others are in results.parquet."
    )


def faithfulness_figure(
    results: pd.DataFrame,
    x: str,
    lead: pd.Series | None = None,
    looks: Mapping[str, Mark] | None = None,
    chosen: Sequence[Menu] | None = None,
    axes: Axes = AXES,
) -> go.Figure:
    """Faithfulness against `x`, a key of `axes`: one line a series and ablation. Where nothing but
    the method varies, symbols tell methods too.

    Each trace's `meta` holds the values of the menus' columns, by which the page chooses; those
    that the menus' first choices show are visible.

    Args:
        looks: the mark of each method_name; those of the table alone if None.
        chosen: the page's menus; those of the table alone if None.
        axes: titles and kinds of the axes.
    """
    table = with_series(results)
    chosen = menus(results, lead) if chosen is None else chosen
    looks = looks or marks(dict(zip(table["method_name"], table["method"], strict=True)))
    variants, apart = sorted(set(table["variant"])), marks_of_variants(table)
    traces = []
    title, kind = axes[x]
    log = kind == "log"
    for line in _lines(table, x, [menu.name for menu in chosen], kind):
        colour, symbol = looks[line.method]
        if len(variants) > 1:
            symbol = SYMBOLS[variants.index(line.variant) % len(SYMBOLS)]
        colour, symbol = apart.get(line.series, Mark(colour, symbol))
        trace = {
            "type": "scatter",
            "x": line.rows[x].to_numpy(),
            "y": line.rows["faithfulness"].to_numpy(),
            "name": line.name,
            "line": {"color": colour, "dash": DASHES.get(line.ablation, "dot")},
            "marker": {"symbol": symbol + ("" if line.ablation == "edge" else "-open")},
            "customdata": line.rows[list(HOVER_COLUMNS)].to_numpy(np.float32),
            "meta": line.meta,
            **_band(line.rows),
            "visible": all(m.chosen in ("*", line.meta.get(m.name, m.chosen)) for m in chosen),
        }
        traces.append(trace)
    figure = go.Figure(traces)
    _reference_lines(figure)
    return styled(
        figure,
        height=430 if x == "n_edges" else 360,
        xaxis={"title": {"text": title}, "type": kind, **(log_ticks(table[x]) if log else {})},
        yaxis={"title": {"text": "faithfulness φ"}, "range": _range(table), "dtick": 0.2},
        template={"data": {"scatter": [LOOKS]}},
    )


def _reference_lines(figure: go.Figure) -> None:
    for level, text, place in (
        (1, "the model", "top left"),
        (0, "the empty circuit", "bottom right"),
    ):
        figure.add_hline(
            level,
            line={"color": "#8a93a0", "width": 1},
            annotation={"text": text, "font": {"size": 11}},
            annotation_position=place,
        )


def _lines(table: pd.DataFrame, x: str, menu_names: list[str], kind: str) -> Iterator[Line]:
    told = ["method_name", "variant", "ablation"]
    table = table.sort_values(["n_edges", x])  # groups keep this order
    for key, rows in table.groupby([*(table[c] for c in (*menu_names, *told))], sort=True):
        *chosen, method, variant, ablation = (str(value) for value in key)
        shown = rows[rows[x] > 0] if kind == "log" else rows
        own = meta(dict(zip(menu_names, chosen, strict=True)), menu_names)
        if set(shown["method"]) == {"random"} and shown["cell"].nunique() > 1:
            shown = _over_orders(shown)
        yield Line(own, method, variant, ablation, shown)


def _over_orders(rows: pd.DataFrame) -> pd.DataFrame:
    """Several random orders as one: of each threshold the mean, and φ's `low` and `high`."""
    groups = rows.groupby("threshold", sort=True)
    numbers = groups[list(dict.fromkeys((*AXES, *SHARE, *HOVER_COLUMNS, "faithfulness")))].mean()
    ends = groups["faithfulness"].agg(low="min", high="max")
    return numbers.join(ends).reset_index().sort_values("n_edges")


def _band(rows: pd.DataFrame) -> dict[str, object]:
    """The range over random orders, where there are several."""
    if "low" not in rows or not len(rows):
        return {}
    phi = rows["faithfulness"]
    ends = {"array": (rows["high"] - phi).to_numpy(), "arrayminus": (phi - rows["low"]).to_numpy()}
    return {"error_y": {"type": "data", "symmetric": False, **ends, "thickness": 6, "width": 0}}


def _range(table: pd.DataFrame) -> list[float]:
    """The unit interval and what lies a little outside it; far outliers stay outside the view."""
    values = table["faithfulness"].dropna()
    if values.empty:
        return [-0.1, 1.1]
    return [max(-0.6, min(-0.1, values.min() - 0.05)), min(1.8, max(1.1, values.max() + 0.05))]


def n_outside(results: pd.DataFrame) -> int:
    """Points whose faithfulness lies outside the drawn range."""
    table = results[results["blocks"] == "all"]
    low, high = _range(table)
    return int(((table["faithfulness"] < low) | (table["faithfulness"] > high)).sum())

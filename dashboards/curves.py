"""Faithfulness against size: the run's main figure (Dhimoïla figures 10 and 11)."""

from collections.abc import Iterator

import pandas as pd
import plotly.graph_objects as go

from dashboards.style import DASHES, SYMBOLS, colour_of, styled

#: columns that tell one series from another; those that vary make its label
SERIES = (
    "model",
    "task",
    "method",
    "steps",
    "build_patch",
    "build_metric",
    "aggregation",
    "selection",
    "eval_patch",
)
#: x column -> axis title, log or linear
AXES = {
    "n_edges": ("edges in the circuit", "log"),
    "n_nodes": ("nodes in the circuit", "linear"),
    "average_degree": ("average degree, 2 E / N", "log"),
}
METRIC_NAMES = {
    "logit_diff": "logit difference",
    "kl": "KL divergence",
    "kl_reverse": "KL divergence, reversed",
    "stat_dist": "statistical distance",
    "accuracy": "accuracy",
}


def with_series(results: pd.DataFrame) -> pd.DataFrame:
    """Results of whole circuits with a column `series`: the label made of what varies."""
    table = results[results["blocks"] == "all"].copy()
    varying = [c for c in SERIES if table[c].astype(str).nunique() > 1]
    if "method" in varying and "steps" in varying:
        varying.remove("steps")  # said with the method
    steps = table["steps"].fillna(0).astype(int)
    method = table["method"].where(steps <= 1, table["method"] + " ×" + steps.astype(str))
    columns = [method if c == "method" else table[c].astype(str) for c in varying or ["method"]]
    series = columns[0]
    for column in columns[1:]:
        series = series + " · " + column
    return table.assign(series=series)


def default_metric(table: pd.DataFrame) -> str:
    """KL where it was measured (the paper prefers it: logits are noisy), else the first."""
    metrics = list(dict.fromkeys(table["metric"]))
    return "kl" if "kl" in metrics else metrics[0]


def subsets(table: pd.DataFrame) -> list[str]:
    """All inputs first, then the member tasks."""
    found = sorted(set(table["subset"]))
    return sorted(found, key=lambda s: s != "all")


def faithfulness_figure(results: pd.DataFrame, x: str) -> go.Figure:
    """One line a series and ablation; the page shows one metric and subset at a time.

    Each trace's `meta` is `{metric, subset}`, by which the page's selectors choose.
    """
    table = with_series(results)
    names = sorted(set(table["series"]))
    metric, subset = default_metric(table), subsets(table)[0]
    figure = go.Figure()
    for trace_metric, trace_subset, name, ablation, rows in _lines(table, x):
        colour = colour_of(name, names)
        figure.add_scatter(
            x=rows[x],
            y=rows["faithfulness"],
            name=f"{name}, {ablation} ablation",
            mode="lines+markers",
            line={"color": colour, "dash": DASHES[ablation], "width": 2},
            marker={"symbol": SYMBOLS[ablation], "size": 7},
            customdata=rows[
                ["n_edges", "n_nodes", "average_degree", "value", "value_full", "value_empty"]
            ],
            hovertemplate=(
                f"<b>{name}, {ablation} ablation</b><br>faithfulness %{{y:.3f}}"
                "<br>%{customdata[0]:,} edges, %{customdata[1]:,} nodes,"
                " degree %{customdata[2]:.1f}<br>value %{customdata[3]:.4g}"
                " (model %{customdata[4]:.4g}, empty %{customdata[5]:.4g})<extra></extra>"
            ),
            meta={"metric": trace_metric, "subset": trace_subset},
            visible=trace_metric == metric and trace_subset == subset,
        )
    for level, text in ((1.0, "the model"), (0.0, "the empty circuit")):
        figure.add_hline(level, line={"color": "#999", "width": 1}, annotation_text=text)
    title, kind = AXES[x]
    low, high = _range(table)
    return styled(
        figure,
        xaxis={"title": title, "type": kind, "dtick": 1 if kind == "log" else None},
        yaxis={"title": "faithfulness φ", "range": [low, high]},
    )


def _lines(table: pd.DataFrame, x: str) -> Iterator[tuple[str, str, str, str, pd.DataFrame]]:
    groups = table.groupby(["metric", "subset", "series", "ablation"], sort=True)
    for key, rows in groups:
        metric, subset, series, ablation = map(str, key)
        shown = rows[rows[x] > 0] if AXES[x][1] == "log" else rows
        yield metric, subset, series, ablation, shown.sort_values(["threshold", x])


def _range(table: pd.DataFrame) -> tuple[float, float]:
    """The unit interval and what lies a little outside it; far outliers stay outside the view."""
    values = table["faithfulness"].dropna()
    if values.empty:
        return -0.05, 1.1
    return max(-0.6, min(-0.05, values.min() - 0.05)), min(1.8, max(1.1, values.max() + 0.05))


def smallest_faithful(results: pd.DataFrame, levels: tuple[float, ...]) -> pd.DataFrame:
    """The smallest measured circuit of each series that reaches a faithfulness, all inputs.

    Returns:
        Columns series, ablation, metric, level, n_edges, share, faithfulness; `n_edges` is NaN
        where no circuit of the grid reaches it.
    """
    table = with_series(results)
    table = table[table["subset"] == "all"]
    rows = []
    for key, group in table.groupby(["series", "metric", "ablation"], sort=True):
        for level in levels:
            enough = group[group["faithfulness"] >= level].sort_values("n_edges")
            best = enough.iloc[0] if len(enough) else None
            rows.append(
                {
                    "series": key[0],
                    "metric": key[1],
                    "ablation": key[2],
                    "level": level,
                    "n_edges": float("nan") if best is None else best["n_edges"],
                    "share": float("nan") if best is None else best["density"],
                    "faithfulness": float("nan") if best is None else best["faithfulness"],
                }
            )
    return pd.DataFrame(rows)

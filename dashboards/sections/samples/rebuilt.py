"""The section of intervals over build and evaluation prompts together, and of how often one method
beats another on the same resamples of both."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import share, varying
from edgesweep.dashboards.pages import Section, Table, marker
from edgesweep.dashboards.series import meta, told_to_menus

AREA = "area_log"
#: what tells the rows of one comparison from those of another
OF = ("model", "task", "seed", "subset")


def section(data: RunData) -> Iterator[Section]:
    """Nothing where no circuit was found again."""
    if data.rebuilt.empty:
        return
    first = data.rebuilt.iloc[0]
    level, n = share(data.config["measures"]["level"]), int(first["n_rebuilt"])
    parts = [intervals_table(data)]
    beaten = ""
    if len(data.pairs):
        parts.append(wins_table(data))
        beaten = (
            " Below: in how many of these resamples, the same for both, the method of a row has a "
            "larger area than that of a column; <b>bold</b> where the interval of their difference "
            "leaves out 0."
        )
    yield Section(
        "prompts",
        "With other prompts",
        f"Edges were ranked again on {n} resamples of the build prompts and their circuits run "
        f"again ({escape(str(first['ablation']))} ablation, {escape(str(first['eval_patch']))} "
        f"values). Ranges are {level} intervals of the area under faithfulness over build and "
        "evaluation prompts together; the columns beside them say how much the area spreads with "
        "either (one standard deviation). Few resamples make them wide, and a ranking of a "
        f"resample is noisier than that of fresh prompts, so that they rather err upwards.{beaten} "
        "The metric is chosen under <a href='#curves'>Faithfulness against size</a>.",
        tuple(parts),
    )


def intervals_table(data: RunData) -> Table:
    """A row a curve, the best first, which the page's menus choose."""
    table = data.rebuilt[data.rebuilt["measure"] == AREA]
    table = table.sort_values("value", ascending=False, kind="stable")
    columns, several = _chosen_by(table, data), varying(table, OF)
    head = ["method", *several, "area", "with build prompts", "with evaluation prompts"]
    rows = [
        [
            f"{marker(data.marks[row['method_name']])}{escape(row['method_name'])}",
            *(escape(str(row[c])) for c in several),
            f"{_number(row['value'])}<small>{_number(row['low'])}&nbsp;to&nbsp;"
            f"{_number(row['high'])}</small>",
            f"±&nbsp;{_number(row['spread_build'])}",
            f"±&nbsp;{_number(row['spread_evaluation'])}",
        ]
        for row in table.to_dict("records")
    ]
    chosen = [meta(row, columns) for row in table.to_dict("records")]
    return Table(head, rows, range(1 + len(several), len(head)), chosen)


def wins_table(data: RunData) -> Table:
    """A row a method, a column the method that it is held against."""
    both = _both_ways(data.pairs)
    names = data.rebuilt.drop_duplicates("cell").set_index("cell")["method_name"].to_dict()
    columns, several = _chosen_by(both, data), varying(both, OF)
    methods = list(dict.fromkeys(names[cell] for cell in both["cell_a"]))
    of_row = ["metric", *OF, "cell_a"]
    rows, chosen = [], []
    for _, group in both.groupby(of_row, sort=False):
        against = {names[row["cell_b"]]: row for row in group.to_dict("records")}
        first = group.iloc[0].to_dict()
        mine = names[first["cell_a"]]
        told = [
            f"{marker(data.marks[mine])}{escape(mine)}",
            *(escape(str(first[c])) for c in several),
        ]
        rows.append([*told, *(_won(against.get(other)) for other in methods)])
        chosen.append(meta(first, columns))
    head = ["beats, of all resamples", *several, *map(escape, methods)]
    return Table(head, rows, range(1 + len(several), len(head)), chosen)


def _chosen_by(table: pd.DataFrame, data: RunData) -> list[str]:
    """The menus that choose rows; inputs stand side by side, for means over tasks have none."""
    return [c for c in told_to_menus(table, data.results) if c != "subset"]


def _both_ways(pairs: pd.DataFrame) -> pd.DataFrame:
    """Every pair also the other way round."""
    turned = {
        "cell_a": "cell_b",
        "cell_b": "cell_a",
        "method_a": "method_b",
        "method_b": "method_a",
    }
    other = pairs.rename(columns=turned)
    ends = {"value": -pairs["value"], "low": -pairs["high"], "high": -pairs["low"]}
    other = other.assign(**ends, wins=1 - pairs["wins"])
    return pd.concat([pairs, other], ignore_index=True)


def _won(row: Mapping[Any, Any] | None) -> str:
    if row is None or pd.isna(row["wins"]):
        return ""
    told = share(row["wins"])
    is_sure = row["low"] > 0 or row["high"] < 0
    difference = f"<small>{row['value']:+.3f}</small>"
    return f"<b>{told}</b>{difference}" if is_sure else f"{told}{difference}"


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{round(value, 3) + 0.0:.3f}"

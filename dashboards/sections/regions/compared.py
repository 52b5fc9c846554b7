"""Partitions beside each other at equal numbers of blocks, and the block model's chains."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.regions import NAMES
from edgesweep.dashboards.pages import Section, Table
from edgesweep.dashboards.sections.regions.naming import OF_UNITS, ordered, told

#: the share of regions that the table tells of: of 20 the third is a little above it
NEAR, SLACK = 0.1, 0.006


def section(data: RunData) -> Iterator[Section]:
    areas = data.rois.get("region_areas", pd.DataFrame())
    if areas.empty:
        return
    rows = _by_size(data, areas).join(_ablated(data), on=OF_PARTITION)
    words = told(rows, ["eval_patch"])
    several = [_over_models(rows, words)] if rows["model"].nunique() > 1 else []
    yield Section(
        "regions",
        "Regions beside other partitions",
        "<i>Area</i>: under accuracy against the share of units that take their patch value, each "
        "input's strongest regions first; less is better. <i>Less random's</i>: minus that of "
        "random blocks, as many and of the block model's sizes (of even sizes where a number of "
        f"blocks is given). <i>Without the first {NEAR:.0%}</i>: accuracy when so many regions of "
        "each input are gone. <i>Own class</i> and <i>others</i>: mean accuracy on a class without "
        "its own regions, and without another's. Finer partitions do better at all of this, single "
        "units best, so compare rows of about as many blocks. Intervals are over inputs"
        + ("; those of means over models are the models' range." if several else "."),
        (*several, _table(rows, words)),
    )


#: what tells a row of areas from others of its side
OF_PARTITION = ["units", "partition", "asked", "eval_patch"]
HEAD = (
    *("partition", "blocks", "area", "less random's"),
    *(f"without the first {NEAR:.0%}", "own class", "others"),
)


def _by_size(data: RunData, areas: pd.DataFrame) -> pd.DataFrame:
    """Of the ablated side."""
    return ordered(data, areas[areas["side"] == "ablate"])


def _ablated(data: RunData) -> pd.DataFrame:
    """By partition and patch: accuracy without the first regions, and of classes without their own
    and others'; means over draws."""
    table = data.rois["region_ablation"]
    table = table[table["metric"] == "accuracy"]
    near = table[(table["side"] == "ablate") & (table["tau"] <= NEAR + SLACK)]
    near = near[near["tau"] == near["tau"].max()]
    without = table[table["side"] == "without"]
    own = without["of"] == without["on"]
    parts = {"near": near, "own": without[own], "others": without[~own]}
    return pd.DataFrame(
        {k: rows.groupby(OF_PARTITION)["value"].mean() for k, rows in parts.items()}
    )


def _table(rows: pd.DataFrame, words: list[str]) -> Table:
    cells = [
        [
            *_words(row, words),
            f"{row['n_blocks']:,}",
            _with_ends(row["area"], row["low"], row["high"]),
            _with_ends(row["beside_random"], row["beside_low"], row["beside_high"]),
            *(_with_ends(row[c]) for c in ("near", "own", "others")),
        ]
        for row in rows.to_dict("records")
    ]
    head = [*(c.replace("_", " ") for c in words), *HEAD]
    return Table(head, cells, range(len(words) + 1, len(head)))


def _words(row: Mapping[Hashable, Any], words: Sequence[str]) -> list[str]:
    named = NAMES.get(row["partition"], row["partition"])
    return [escape(str(told)) for told in (*(row[c] for c in words), named)]


def _over_models(rows: pd.DataFrame, words: list[str]) -> Table:
    """The mean over models, and their range: networks that differ in the seed of their training."""
    words, cells = [c for c in words if c != "model"], []
    kept = [*(c for c in OF_UNITS if c != "model"), "partition", "asked", "eval_patch"]
    for _, mine in rows.groupby(kept, sort=False):
        sizes = sorted({int(n) for n in mine["n_blocks"]})
        cells.append(
            [
                *_words(mine.iloc[0].to_dict(), words),
                str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}",
                *(_range(mine[c]) for c in ("area", "beside_random", "near", "own", "others")),
            ]
        )
    head = [*(c.replace("_", " ") for c in words), *HEAD]
    head[len(words)] += f", over {rows['model'].nunique()} models"
    return Table(head, cells, range(len(words) + 1, len(head)))


def _range(values: pd.Series) -> str:
    return _with_ends(values.mean(), values.min(), values.max())


def _with_ends(value: float, low: float = np.nan, high: float = np.nan) -> str:
    if pd.isna(value):
        return ""
    ends = "" if pd.isna(low) else f"&nbsp;<span class='dim'>[{low:.3f},&nbsp;{high:.3f}]</span>"
    return f"{value:.3f}{ends}"


def fits(data: RunData) -> Iterator[Section]:
    """The chains, and graph-tool's judgement."""
    table = data.rois.get("region_fits", pd.DataFrame())
    if table.empty:
        return
    words, rows = told(table), []
    for row in ordered(data, table).to_dict("records"):
        given = "" if pd.isna(row["given"]) else f"{row['given']:,.3f}"
        rows.append(
            [
                *(escape(str(row[c])) for c in words),
                f"chain {row['chain']}" if row["chain"] >= 0 else escape(row["engine"]),
                *(f"{row['n_blocks']:,}", f"{row['length']:,.3f}", given),
                f"{row['agreement']:.2f}",
                f"{row['n_live']:,} of {row['n_units']:,}",
                f"{row['n_clipped']:,}",
            ]
        )
    head = ["", "blocks", "nats", "of what it was handed", "agreement", "live units", "copies"]
    yield Section(
        "regions-fits",
        "The block model",
        f"Description lengths of the chains, of which the shortest is taken ({_model(data)}). "
        "graph-tool, where it is asked, computes the length of the engine's shortest itself, which "
        "must be the same, and goes on from it with moves of its own. <i>Agreement</i> with the "
        "shortest: adjusted mutual information. "
        "<i>Copies</i>: pairs of units with a correlation of 1.",
        (Table([*(c.replace("_", " ") for c in words), *head], rows, range(len(words) + 1, 99)),),
    )


def _model(data: RunData) -> str:
    """The block model in words."""
    rois = data.config["rois"]
    if rois["encoding"] == "published":
        return (
            "as published: nested, microcanonical, degree-corrected, each pair twice and loops of "
            f"weight 0; level {rois['level']}"
        )
    prior = "with a normal-inverse-χ² prior" if rois["model"] == "nix" else "microcanonical"
    level = f"nested, level {rois['level']}" if rois["fit"] == "nested" else "flat"
    layers = (
        ", one partition for all classes, each a layer of correlations over its inputs, in which a "
        "unit that does not vary there has no tie"
    ) * (rois.get("layers", "none") != "none")
    return f"{level}, weights normal {prior}, not degree-corrected{layers}"

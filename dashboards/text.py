"""The words and tables of the report."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import pandas as pd
import yaml

from dashboards.curves import METRIC_NAMES, default_metric, smallest_faithful, with_series
from dashboards.data import RunData
from dashboards.structure import memberships

LEVELS = (0.8, 0.95)
#: a model that is right less often than this on two-way questions cannot do the task
POOR_ACCURACY = 0.6


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int]) -> str:
    """A table; `numeric` columns stand to the right. Cells are HTML already."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in numeric else ''}>{v}</{tag}>" for i, v in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<div class='scroll'><table><tr>{cells('th', head)}</tr>{body}</table></div>"


def leading(data: RunData) -> pd.Series | None:
    """The point that the page leads with: the smallest edge-ablated circuit at φ ≥ 0.8, else the
    most faithful one; all inputs, default metric."""
    if data.results.empty:
        return None
    table = with_series(data.results)
    table = table[(table["subset"] == "all") & (table["metric"] == default_metric(table))]
    if "edge" in set(table["ablation"]):
        table = table[table["ablation"] == "edge"]
    table = table[table["faithfulness"].notna()]
    enough = table[table["faithfulness"] >= LEVELS[0]]
    if len(enough):
        return enough.sort_values(["n_edges", "series"]).iloc[0]
    ranked = table.sort_values(["faithfulness", "n_edges"], ascending=[False, True])
    return ranked.iloc[0] if len(ranked) else None


def summary(data: RunData) -> str:
    """One paragraph in plain words."""
    best = leading(data)
    if best is None:
        shards = data.status["shards"]
        return (
            f"This run is not finished: {shards['committed']} of {shards['total']} shards are done."
        )
    metric = METRIC_NAMES.get(best["metric"], best["metric"])
    return (
        f"<b>{best['n_edges']:,} of {best['n_edges_possible']:,} edges "
        f"({100 * best['density']:.2g}%)</b> keep <b>{100 * best['faithfulness']:.0f}%</b> of what "
        f"the model does, by {escape(metric)} on {best['n_inputs']} prompts that were not used to "
        f"find them. The edges were chosen by {escape(best['series'])}, and the circuit was run by "
        f"{escape(best['ablation'])} ablation with {escape(best['eval_patch'])} patches."
    )


def warnings(data: RunData) -> str:
    """What a reader must know before the figures."""
    found = [
        f"{row['model']} cannot do {row['task']} (accuracy {row['accuracy']:.2f}): "
        "its circuits explain little."
        for row in _skill(data)
        if row["accuracy"] is not None and row["accuracy"] < POOR_ACCURACY
    ]
    if data.status["shards"]["quarantined"]:
        found.append(
            f"{data.status['shards']['quarantined']} shards failed and were left out; "
            f"edgesweep resume {data.path} tries them again."
        )
    return "".join(f"<p class='warn'>{escape(text)}</p>" for text in found)


def key_table(data: RunData) -> str:
    """The smallest faithful circuit of each series; rows are filtered by the page's metric."""
    table = smallest_faithful(data.results, LEVELS)
    rows = []
    for key, group in table.groupby(["metric", "series", "ablation"], sort=True):
        metric, series, ablation = map(str, key)
        sizes = [_size(row) for _, row in group.sort_values("level").iterrows()]
        cells = [escape(series), escape(ablation), *sizes]
        body = "".join(f"<td{' class=n' if i > 1 else ''}>{c}</td>" for i, c in enumerate(cells))
        rows.append(f"<tr data-metric='{escape(metric)}'>{body}</tr>")
    heads = "".join(f"<th class=n>edges for φ ≥ {level}</th>" for level in LEVELS)
    return (
        "<div class='scroll'><table><tr><th>scores</th><th>ablation</th>"
        f"{heads}</tr>{''.join(rows)}</table></div>"
    )


def _size(row: pd.Series) -> str:
    if pd.isna(row["n_edges"]):
        return "not reached"
    return f"{int(row['n_edges']):,} ({100 * row['share']:.2g}%)"


def _skill(data: RunData) -> list[dict[str, Any]]:
    """The full model on each task, as the newest driver measured it."""
    rows = {(e["model"], e["task"]): e for e in data.log if e.get("event") == "skill"}
    fields = ("model", "task", "accuracy", "logit_diff")
    return [{name: event.get(name) for name in fields} for event in rows.values()]


def skill_table(data: RunData) -> str:
    """The full model's accuracy and logit difference per task."""
    rows = [
        [escape(r["model"]), escape(r["task"]), _number(r["accuracy"]), _number(r["logit_diff"])]
        for r in _skill(data)
    ]
    if not rows:
        return "<p>Not measured yet.</p>"
    return html_table(["model", "task", "accuracy", "logit difference"], rows, (2, 3))


def _number(value: Any) -> str:
    return "not measured" if value is None or pd.isna(value) else f"{value:.2f}"


def block_table(blocks: pd.DataFrame) -> str:
    """Blocks of the bottom level with their labels and nodes."""
    rows = [
        [
            f"<span class='swatch' style='background:{row['colour']}'></span>{row['block']}",
            escape(row["label"]),
            str(len(row["nodes"])),
            f"<span class='nodes'>{escape(_shortened(row['nodes']))}</span>",
        ]
        for row in memberships(blocks)
    ]
    return html_table(["block", "label", "nodes", "members"], rows, (2,))


def _shortened(nodes: Sequence[str], most: int = 24) -> str:
    rest = len(nodes) - most
    return ", ".join(nodes[:most]) + (f" and {rest} more" if rest > 0 else "")


def _listed(values: pd.Series) -> str:
    return ", ".join(sorted(set(values.astype(str))))


def identity(data: RunData) -> str:
    """Run id, models, versions, shards, and the commands that make the run again."""
    commits, status = data.commits, data.status
    usual = data.config["execution"]["micro_batch"]
    halved = commits[(commits["stage"] == "attribute") & (commits["micro_batch"] < usual)]
    halved = halved[halved["rows"] > halved["micro_batch"]]
    models = data.plan["identity"].get("models", {})
    facts = {
        "run id": status["run_id"],
        "state": status["state"],
        "shards": f"{status['shards']['committed']} of {status['shards']['total']} committed, "
        f"{status['shards']['quarantined']} quarantined",
        "tried again": str(int((commits["attempt"] > 1).sum())) if len(commits) else "0",
        "micro-batch halved": ", ".join(halved["shard"]) or "none",
        "compute": f"{commits['seconds'].sum():,.0f} s on {_listed(commits['device'])}",
        **{f"sha256 of {name}": digest for name, digest in models.items()},
        "versions": ", ".join(f"{k} {v}" for k, v in data.plan.get("versions", {}).items()),
    }
    rows = [[escape(k), f"<code>{escape(str(v))}</code>"] for k, v in facts.items()]
    config = {k: v for k, v in data.config.items() if k != "versions"}
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return (
        html_table(["", ""], rows, ())
        + "<p style='margin-top:16px'>Save this as <code>config.yaml</code> and run "
        "<code>edgesweep run config.yaml</code>: the same config gives the same run id, and on the "
        f"same kind of processor the same numbers.</p><pre>{escape(text)}</pre>"
    )

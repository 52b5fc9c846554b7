"""The words of the report's head: its summary, its warnings, its key table, the model's skill."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from edgesweep.dashboards.curves import VARIANTS, default_metric, smallest_faithful, with_series
from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import (
    NODE_METHODS,
    decimal,
    method_name,
    metric_name,
    share,
    varying,
)
from edgesweep.dashboards.pages import choosable

LEVELS = (0.8, 0.95)
#: what decides a circuit beside its method
CHOOSES = ("build_patch", "build_metric", "aggregation", "selection")
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


# --- summary -----------------------------------------------------------------------------------


def leading(data: RunData) -> pd.Series | None:
    """The point that the page leads with: the smallest edge-ablated circuit at φ ≥ 0.8, else the
    most faithful one that has an edge; all inputs, default metric."""
    if data.results.empty:
        return None
    table = with_series(data.results)
    table = table[(table["subset"] == "all") & (table["metric"] == default_metric(table))]
    if "edge" in set(table["ablation"]):
        table = table[table["ablation"] == "edge"]
    table = table[np.isfinite(table["faithfulness"]) & (table["n_edges"] > 0)]
    enough = table[table["faithfulness"] >= LEVELS[0]]
    if len(enough):
        return enough.sort_values(["n_edges", "series"]).iloc[0]
    ranked = table.sort_values(["faithfulness", "n_edges"], ascending=[False, True])
    return ranked.iloc[0] if len(ranked) else None


def summary(data: RunData) -> str:
    """One paragraph in plain words."""
    best = leading(data)
    if best is None:
        return _nothing_measured(data)
    method = method_name(best["method"], best["steps"], best.get("nodes", "heads"), long=True)
    chosen = "nodes, and all edges among them," if best["method"] in NODE_METHODS else "edges"
    return (
        f"{_kept(best)}{_by_other_metrics(data, best)} Its {chosen} were chosen by "
        f"{escape(method)}{escape(_how_chosen(data, best))}; all others were cut and fed "
        f"{escape(best['eval_patch'])} values ({escape(best['ablation'])} ablation)."
    )


def _nothing_measured(data: RunData) -> str:
    shards = data.status["shards"]
    if data.results.empty:
        done = f"{shards['committed']:,} of {shards['total']:,} shards are done"
        return f"This run is not finished: {done}, and no results are written yet."
    return (
        "This run says nothing of how faithful a circuit is: none with an edge was measured whose "
        "faithfulness is defined, for values are not finite, or the model does no more than the "
        "empty circuit."
    )


def _kept(best: pd.Series) -> str:
    """What the leading circuit does, of what the model does, and how that was measured."""
    phi, model = float(best["faithfulness"]), escape(best["model"])
    size = f"{best['n_edges']:,} of {best['n_edges_possible']:,} edges ({share(best['density'])})"
    how = (
        f"by {escape(metric_name(best['metric']))} on {best['n_inputs']:,} prompts of "
        f"{escape(best['task'])} that were not used to find them"
    )
    if phi <= 0:
        return (
            f"<b>No circuit run by {escape(best['ablation'])} ablation keeps any of what {model} "
            f"does</b>, {how}. The best that was measured, {size}, is no better than the empty "
            f"circuit (φ = {decimal(phi)})."
        )
    verb, more = ("keep", "") if phi <= 1 else ("reach", ", more than the model itself")
    return f"<b>{size}</b> {verb} <b>{share(phi)}</b> of what {model} does{more}, {how}."


def _how_chosen(data: RunData, best: pd.Series) -> str:
    """What else than the method decided the circuit, where the run has several."""
    told = [c for c in varying(data.results, CHOOSES) if best[c]]
    words = "; ".join(f"{VARIANTS[c]}: {best[c]}" for c in told)
    return f" ({words})" if words else ""


def _by_other_metrics(data: RunData, best: pd.Series) -> str:
    """The same point by the logit difference, where the page leads with another metric."""
    same = ("circuit", "subset", "ablation", "eval_patch", "blocks", "split")
    table = data.results[data.results["metric"] == "logit_diff"]
    for column in same:
        table = table[table[column] == best[column]]
    if best["metric"] == "logit_diff" or len(table) != 1 or table["faithfulness"].isna().any():
        return ""
    kept = float(table["faithfulness"].iloc[0])
    if kept <= 0:
        return f" Of its logit difference this circuit keeps nothing (φ = {decimal(kept)})."
    verb = "keeps" if kept <= 1 else "reaches"
    return f" Of its logit difference this circuit {verb} {share(kept)}."


def warnings(data: RunData) -> str:
    """What a reader must know before the figures."""
    found = [
        f"{row['model']} cannot do {row['task']} (accuracy {_number(row['accuracy'])}, logit "
        f"difference {_number(row['logit_diff'])}): its circuits explain little."
        for row in skills(data)
        if can(row) == "no"
    ]
    shards = data.status["shards"]
    if n_bad := int(data.commits["n_bad"].fillna(0).sum()):
        found.append(
            f"{n_bad:,} values are not finite, and what stands on them is left out of the figures; "
            "The run says of which cells."
        )
    if n := shards["quarantined"]:
        found.append(
            f"{n:,} shard{'s' * (n > 1)} failed and {'were' if n > 1 else 'was'} left out; "
            f"edgesweep resume {data.path} tries again. The run says what is missing for it."
        )
    elif shards["committed"] < shards["total"] and not data.results.empty:
        found.append(
            f"This run is not finished: {shards['committed']} of {shards['total']} shards are "
            "done, and the figures show those only."
        )
    return "".join(f"<p class='warn'>{escape(text)}</p>" for text in found)


# --- the model itself --------------------------------------------------------------------------


def skills(data: RunData) -> list[dict[str, Any]]:
    """The full model on each task and seed, as the newest driver measured it: model, task, seed,
    accuracy, logit_diff."""
    said = [e for e in data.log if e.get("event") == "skill"]
    rows = {(e["model"], e["task"], e.get("seed")): e for e in said}
    fields = ("model", "task", "seed", "accuracy", "logit_diff")
    return [{name: event.get(name) for name in fields} for event in rows.values()]


def can(skill: Mapping[str, Any]) -> str:
    """Whether the model can do a task: `no` near chance, or where the bad answers are preferred;
    `not known` where its values are not finite."""
    accuracy, logit_diff = skill["accuracy"], skill["logit_diff"]
    if pd.isna(accuracy) or pd.isna(logit_diff):
        return "not known"
    return "no" if accuracy < POOR_ACCURACY or logit_diff <= 0 else "yes"


def skill_table(data: RunData) -> str:
    """The full model's accuracy and logit difference per task; model and seed if there are two."""
    found = skills(data)
    if not found:
        return "<p>Not measured yet: the evaluation of the full model is a later stage.</p>"
    several = [name for name in ("model", "seed") if len({r[name] for r in found}) > 1]
    rows = [
        [
            *(escape(str(r[name])) for name in several),
            escape(r["task"]),
            _number(r["accuracy"]),
            _number(r["logit_diff"]),
            can(r) if can(r) == "yes" else f"<span class='bad'>{can(r)}</span>",
        ]
        for r in found
    ]
    names = [*several, "task"]
    head = [*names, "accuracy", "logit difference", "can do it"]
    return html_table(head, rows, range(len(names), len(head)))


def _number(value: Any) -> str:
    return "not finite" if pd.isna(value) else decimal(value)


# --- the key table -----------------------------------------------------------------------------


def key_table(data: RunData) -> str:
    """The smallest faithful circuit of each line; the page's menus choose among the rows."""
    table = smallest_faithful(data.results, LEVELS)
    several = varying(table, ("model", "task"))
    lines = ["metric", "model", "task", *(c for c in VARIANTS if c in table), "series", "ablation"]
    rows = []
    for _, group in table.groupby(lines, sort=True):
        levels = group.sort_values("level").to_dict("records")
        first = levels[0]
        told = [escape(str(first[c])) for c in ("series", "ablation", *several)]
        body = "".join(f"<td>{text}</td>" for text in told)
        body += "".join(f"<td class=n>{_size(level)}</td>" for level in levels)
        body += f"<td class=n>{_best(first)}</td>"
        meta = {c: first[c] for c in lines if c != "series"}
        rows.append(f"<tr {choosable(meta)}>{body}</tr>")
    heads = "".join(f"<th>{h}</th>" for h in ("scored by", "ablation", *several))
    heads += "".join(f"<th class=n>edges for φ&nbsp;≥&nbsp;{level}</th>" for level in LEVELS)
    return (
        f"<div class='scroll'><table><tr>{heads}<th class=n>best φ</th></tr>"
        f"{''.join(rows)}</table></div>"
    )


def _best(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["best"]):
        return "<span class='dim'>not defined</span>"
    return f"{decimal(row['best'])}<small>at {int(row['best_n_edges']):,}</small>"


def _size(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["n_edges"]):
        return "<span class='dim'>not reached</span>"
    part = f"{share(row['density'])}, "
    return f"{int(row['n_edges']):,}{_small(row['n_nodes'], 'nodes', part)}"


def _small(count: float, what: str, before: str) -> str:
    return f"<small>{before}{int(count):,}&nbsp;{what}</small>"

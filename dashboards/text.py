"""The words of the report's head: its summary, its warnings, its key table, the model's skill."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from dashboards.curves import VARIANTS, default_metric, smallest_faithful, with_series
from dashboards.data import RunData
from dashboards.names import NODE_METHODS, method_name, metric_name, share, varying
from dashboards.pages import choosable

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


# --- summary -----------------------------------------------------------------------------------


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
    method = method_name(best["method"], best["steps"], best.get("nodes", "heads"), long=True)
    if best["variant"]:
        method = f"{method} ({best['variant']})"
    chosen = "nodes, and all edges among them," if best["method"] in NODE_METHODS else "edges"
    return (
        f"<b>{best['n_edges']:,} of {best['n_edges_possible']:,} edges "
        f"({share(best['density'])})</b> keep <b>{100 * best['faithfulness']:.0f}%</b> of what "
        f"{escape(best['model'])} does, by {escape(metric_name(best['metric']))} on "
        f"{best['n_inputs']} prompts that were not used to find them."
        f"{_by_other_metrics(data, best)} The {chosen} were chosen by {escape(method)}; "
        f"all others were cut and fed {escape(best['eval_patch'])} values "
        f"({escape(best['ablation'])} ablation)."
    )


def _by_other_metrics(data: RunData, best: pd.Series) -> str:
    """The same point by the logit difference, where the page leads with another metric."""
    same = ("circuit", "subset", "ablation", "eval_patch", "blocks", "split")
    table = data.results[data.results["metric"] == "logit_diff"]
    for column in same:
        table = table[table[column] == best[column]]
    if best["metric"] == "logit_diff" or len(table) != 1 or table["faithfulness"].isna().any():
        return ""
    kept = table["faithfulness"].iloc[0]
    verb = "keep" if kept <= 1 else "reach"
    return f" They {verb} {100 * kept:.0f}% of its logit difference."


def warnings(data: RunData) -> str:
    """What a reader must know before the figures."""
    found = [
        f"{row['model']} cannot do {row['task']} (accuracy {_number(row['accuracy'])}, logit "
        f"difference {_number(row['logit_diff'])}): its circuits explain little."
        for row in skills(data)
        if cannot(row)
    ]
    shards = data.status["shards"]
    if shards["quarantined"]:
        found.append(
            f"{shards['quarantined']} shards failed and were left out; "
            f"edgesweep resume {data.path} tries them again. They are listed under The run."
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


def cannot(skill: Mapping[str, Any]) -> bool:
    """Whether the model cannot do a task: near chance, or the bad answers preferred."""
    accuracy, logit_diff = skill["accuracy"], skill["logit_diff"]
    poor = accuracy is not None and accuracy < POOR_ACCURACY
    return bool(poor or (logit_diff is not None and logit_diff <= 0))


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
            "<span class='bad'>no</span>" if cannot(r) else "yes",
        ]
        for r in found
    ]
    names = [*several, "task"]
    head = [*names, "accuracy", "logit difference", "can do it"]
    return html_table(head, rows, range(len(names), len(head)))


def _number(value: Any) -> str:
    return "not measured" if value is None or pd.isna(value) else f"{value:.2f}"


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
        body += f"<td class=n>{first['best']:.2f}"
        body += f"<small>at {int(first['best_n_edges']):,}</small></td>"
        meta = {c: first[c] for c in lines if c != "series"}
        rows.append(f"<tr {choosable(meta)}>{body}</tr>")
    heads = "".join(f"<th>{h}</th>" for h in ("scored by", "ablation", *several))
    heads += "".join(f"<th class=n>edges for φ&nbsp;≥&nbsp;{level}</th>" for level in LEVELS)
    return (
        f"<div class='scroll'><table><tr>{heads}<th class=n>best φ</th></tr>"
        f"{''.join(rows)}</table></div>"
    )


def _size(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["n_edges"]):
        return "<span class='dim'>not reached</span>"
    part = f"{share(row['density'])}, "
    return f"{int(row['n_edges']):,}{_small(row['n_nodes'], 'nodes', part)}"


def _small(count: float, what: str, before: str) -> str:
    return f"<small>{before}{int(count):,}&nbsp;{what}</small>"

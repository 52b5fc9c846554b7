"""What went wrong in a run: of which cell, and what it means for the numbers on its page."""

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.pages import Table

#: stage -> what a page lacks for a shard that was given up
LACKS = {
    "dictionaries": "nothing of its model over features was computed",
    "means": "nothing with mean patches of its prompts was computed",
    "attribute": "the cell has no scores of all inputs, and so no circuit and no row",
    "refine": "the cell has no scores of all inputs, and so no circuit and no row",
    "subtrees": "the cell has no scores of all inputs, and so no circuit and no row",
    "reduce": "the cell has no scores of all inputs, and so no circuit and no row",
    "reduce_refined": "the cell has no scores of all inputs, and so no circuit and no row",
    "evaluate": "rows that stand for its prompts are left out",
    "block_evaluate": "rows that stand for its prompts are left out",
    "blocks": "the cell has no block model",
    "random_blocks": "what random blocks do is left out",
    "rewired": "random circuits of equal degrees are left out",
    "nulls": "that of what the cell's block model is held against is left out",
    "reach": "the cell's smallest faithful circuits are not known",
    "rebuild": "the cell has no intervals over both splits",
    "rebuild_evaluate": "the cell has no intervals over both splits",
    "probe": "the cell's single edges are left out",
    "bootstrap": "the cell's scores have no intervals and no stability",
}
IN_SCORES = "left out of the aggregated scores, which are those of the other inputs"
IN_VALUES = "means over them, and faithfulness, are not defined and not drawn"
#: rows of one kind of fault
MOST_NAMED = 30

Row = tuple[str, str, str, str]


def faults(data: RunData) -> str:
    """A table of every fault, as HTML; a sentence where there was none."""
    found = [
        row
        for kind in (_left_out, _quarantined, _not_finite, _halved, _nodes, _tried_again)
        for row in _some(list(kind(data)))
    ]
    if not found:
        return "<p>Nothing went wrong: no shard failed, and every value is finite.</p>"
    head = ["what happened", "of", "where", "what it means"]
    rows = [
        [escape(what), escape(of), f"<code>{escape(shard)}</code>" if shard else "", escape(means)]
        for what, of, shard, means in found
    ]
    return "<h3>What went wrong</h3>" + Table(head, rows).html()


def whose(data: RunData, stage: str, shard: str) -> str:
    """The cell of a shard in words; of a reference its model and task."""
    first, *rest = shard.split(".")
    if first == "reference":
        mine = [c for c in data.plan["cells"] if c.get("dataset") == rest[0]]
        return f"the model itself: {_model(mine[0])}" if mine else "the model itself"
    if first in data.cells:
        return f"{data.cell_names[first]}: {_model(data.cells[first])}"
    trained = [site for kind in data.kinds.values() for site in kind.sites]
    for site in trained:
        if site["shard"] == shard:
            return f"the dictionary of {site['site']}"
    return "a mean patch" if stage == "means" else ""


def _model(cell: Mapping[str, Any]) -> str:
    return f"{cell['model']} on {cell['task']}"


def _left_out(data: RunData) -> Iterator[Row]:
    """Stages that the newest driver could not do."""
    for stage, reason in data.status["left_out"].items():
        yield f"stage left out: {reason}", stage, "", LACKS.get(stage, "it is not on this page")


def _quarantined(data: RunData) -> Iterator[Row]:
    for name, error in data.quarantined.items():
        stage, _, shard = name.partition("/")
        yield f"given up: {error}", whose(data, stage, shard), name, LACKS.get(stage, "")


def _not_finite(data: RunData) -> Iterator[Row]:
    """A row a stage and cell: a broken model has them in every shard."""
    found: dict[tuple[str, str], Counter[str]] = {}
    n_shards: Counter[tuple[str, str]] = Counter()
    for record in data.commits[data.commits["n_bad"].fillna(0) > 0].to_dict("records"):
        key = str(record["stage"]), whose(data, str(record["stage"]), str(record["shard"]))
        counts = record["bad"] or {"scores": int(record["n_bad"])}
        found.setdefault(key, Counter()).update(counts)
        n_shards[key] += 1
    for (stage, of), counts in found.items():
        told = ", ".join(f"{n:,} values of {metric}" for metric, n in sorted(counts.items()))
        means = IN_SCORES if stage in ("attribute", "refine") else IN_VALUES
        where = f"{stage}, in {n_shards[stage, of]:,} of its shards"
        yield f"not finite: {told}", of, where, means


def _halved(data: RunData) -> Iterator[Row]:
    """Shards that had to halve their micro-batch for memory: their bits are not promised."""
    commits, planned = data.commits, data.config["execution"]["micro_batch"]
    fewer = commits[(commits["micro_batch"] > 0) & (commits["micro_batch"] < planned)]
    for record in fewer.to_dict("records"):
        what = f"out of memory: {record['micro_batch']} prompts at once, not {planned}"
        yield _of(data, record, what, "its last digits may differ from another machine's")


def _nodes(data: RunData) -> Iterator[Row]:
    """Nodes that were given no more, or went away, and shards that were begun twice."""
    pool, means = data.status["pool"], "nothing: its shards were done elsewhere"
    for node in pool["shut_out"]:
        yield f"shut out: {node['error']}", f"node {node['host']}", "", means
    if n := pool["lost"]:
        yield (
            f"went away: {n:,} node{'s' * (n > 1)}",
            "",
            "",
            "nothing: what was in work there was done elsewhere",
        )
    if n := pool["backups"]:
        yield (
            f"begun a second time for taking long: {n:,} shard{'s' * (n > 1)}",
            "",
            "",
            "nothing: one of two wrote",
        )


def _tried_again(data: RunData) -> Iterator[Row]:
    for record in data.commits[data.commits["attempt"] > 1].to_dict("records"):
        what = f"failed, and done at attempt {record['attempt']}"
        yield _of(data, record, what, "nothing: a shard is redone whole")


def _of(data: RunData, record: Mapping[Any, Any], what: str, means: str) -> Row:
    stage, shard = str(record["stage"]), str(record["shard"])
    return what, whose(data, stage, shard), f"{stage}/{shard}", means


def _some(rows: list[Row]) -> list[Row]:
    rest = len(rows) - MOST_NAMED
    more = [(f"and {rest:,} more of this kind", "", "", "")] if rest > 0 else []
    return rows[:MOST_NAMED] + more

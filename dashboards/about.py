"""The words about the run itself: blocks and their nodes, identity, faults, how to run it again."""

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd
import yaml

from dashboards.data import RunData
from dashboards.pages import patch
from dashboards.sites import forward_key, over_features
from dashboards.structure import memberships
from dashboards.text import html_table

#: features of a block that are named, the strongest
MOST_FEATURES = 16


def block_list(blocks: pd.DataFrame, strength: Mapping[str, float]) -> str:
    """Blocks of the bottom level with their labels and nodes; of many features the strongest.

    Args:
        strength: of each node, in the circuit that was fitted.
    """
    rows = [
        f"<li><span>{patch(row['colour'])} {row['block']}</span>"
        f"<span>{escape(row['label'])}</span><span class='dim'>{_counted(len(row['nodes']))}</span>"
        f"<span>{escape(_named(row['nodes'], strength))}</span></li>"
        for row in memberships(blocks)
    ]
    return f"<ul class='blocks'>{''.join(rows)}</ul>"


def _counted(n: int) -> str:
    return f"{n:,} node{'' if n == 1 else 's'}"


def _named(nodes: Sequence[str], strength: Mapping[str, float]) -> str:
    if not over_features(nodes) or len(nodes) <= MOST_FEATURES:
        return _shortened(nodes)
    ranked = sorted(nodes, key=lambda n: -strength.get(n, 0.0))[:MOST_FEATURES]
    shown = ", ".join(sorted(ranked, key=forward_key))
    return f"{shown} and {len(nodes) - MOST_FEATURES} with weaker edges"


def _shortened(nodes: Sequence[str], most: int = 40) -> str:
    rest = len(nodes) - most
    return ", ".join(nodes[:most]) + (f" and {rest} more" if rest > 0 else "")


def _listed(values: pd.Series) -> str:
    return ", ".join(sorted(set(values.astype(str)))) or "nothing yet"


def _code(names: Sequence[str], most: int = 30) -> str:
    text = ", ".join(f"<code>{escape(n)}</code>" for n in names[:most])
    return text + (f" and {len(names) - most} more" if len(names) > most else "")


def halved(commits: pd.DataFrame, micro_batch: int) -> list[str]:
    """Shards that had to halve their micro-batch for memory: their bits are not promised."""
    table = commits[(commits["stage"] == "attribute") & (commits["micro_batch"] < micro_batch)]
    return list(table[table["rows"] > table["micro_batch"]]["shard"])


def identity(data: RunData) -> str:
    """Run id, models, versions, shards and what went wrong."""
    commits, status = data.commits, data.status
    shards = status["shards"]
    fewer = halved(commits, data.config["execution"]["micro_batch"])
    again = commits[commits["attempt"] > 1]
    models = data.plan["identity"].get("models", {})
    seconds = float(commits["seconds"].sum()) if len(commits) else 0.0
    facts = {
        "run id": f"<code>{escape(status['run_id'])}</code>",
        "state": escape(status["state"]),
        "shards": f"{shards['committed']:,} of {shards['total']:,} committed, "
        f"{shards['quarantined']:,} quarantined",
        "shards tried again": _code(list(again["shard"])) or "none",
        "shards that halved their micro-batch": _code(fewer) or "none",
        "compute": f"{seconds:,.0f} s, on {escape(_listed(commits['device']))}",
        **{
            f"weights of {escape(name)}": f"<code>sha256 {escape(str(digest))}</code>"
            for name, digest in models.items()
        },
        "versions": escape(", ".join(f"{k} {v}" for k, v in data.plan["versions"].items())),
    }
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return f"<dl>{rows}</dl>{_stages(data)}{_faults(data)}"


def _stages(data: RunData) -> str:
    rows = [
        [escape(name), f"{s['committed']:,}", f"{s['total']:,}", f"{s['quarantined']:,}"]
        for name, s in data.status["stages"].items()
        if s["total"]
    ]
    table = html_table(["stage", "committed", "shards", "quarantined"], rows, (1, 2, 3))
    return f"<details><summary>Shards by stage</summary>{table}</details>"


def _faults(data: RunData) -> str:
    if not data.quarantined:
        return ""
    rows = [
        [f"<code>{escape(shard)}</code>", escape(error)]
        for shard, error in data.quarantined.items()
    ]
    return "<h3>Quarantined shards</h3>" + html_table(["shard", "its last error"], rows, ())


def again(data: RunData) -> str:
    """How to run it again, and the whole config."""
    config = {k: v for k, v in data.config.items() if k != "versions"}
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return (
        "<pre class='command'>edgesweep run config.yaml</pre>"
        f"<details><summary>config.yaml, as resolved</summary><pre>{escape(text)}</pre></details>"
    )

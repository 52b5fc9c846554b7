"""The words about the run itself: blocks and their nodes, identity, faults, how to run it again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd
import yaml

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.faults import faults
from edgesweep.dashboards.pages import patch
from edgesweep.dashboards.sites import forward_key, over_features
from edgesweep.dashboards.structure import memberships
from edgesweep.dashboards.text import html_table

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


def identity(data: RunData) -> str:
    """Run id, models, versions, shards and what went wrong."""
    commits, status = data.commits, data.status
    shards = status["shards"]
    models = data.plan["identity"].get("models", {})
    seconds = float(commits["seconds"].sum()) if len(commits) else 0.0
    facts = {
        "run id": f"<code>{escape(status['run_id'])}</code>",
        "state": escape(status["state"]),
        "shards": f"{shards['committed']:,} of {shards['total']:,} committed, "
        f"{shards['quarantined']:,} quarantined",
        "compute": f"{seconds:,.0f} s, on {escape(_listed(commits['device']))}",
        **{
            f"weights of {escape(name)}": f"<code>sha256 {escape(str(digest))}</code>"
            for name, digest in models.items()
        },
        "versions": escape(in_words(_agreed(data))),
    }
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return f"<dl>{rows}</dl>{_versions(data)}{_stages(data)}{faults(data)}"


def in_words(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _agreed(data: RunData) -> dict[str, str]:
    """The versions that the plan and every shard were made with."""
    made_with = [v for v in data.commits["versions"] if v]
    planned = data.plan["versions"]
    return {k: v for k, v in planned.items() if all(m.get(k) == v for m in made_with)}


def _versions(data: RunData) -> str:
    """What differs between the plan and stages, or within one: a row a stage and its versions."""
    agreed = set(_agreed(data))
    made_with = [("plan", data.plan["versions"])]
    made_with += zip(data.commits["stage"], data.commits["versions"], strict=True)
    count = Counter(
        (stage, in_words({k: v for k, v in (versions or {}).items() if k not in agreed}))
        for stage, versions in made_with
    )
    if not any(words for _, words in count):
        return ""
    rows = [
        [escape(stage), escape(words) or "not noted", "" if stage == "plan" else f"{n:,}"]
        for (stage, words), n in count.items()
    ]
    return (
        "<h3>Versions that differ by stage</h3><p class='note'>This run was resumed with other "
        "versions than it was begun with; that the numbers are those of one version throughout "
        "is not promised.</p>" + html_table(["stage", "versions", "shards"], rows, (2,))
    )


def _stages(data: RunData) -> str:
    rows = [
        [escape(name), f"{s['committed']:,}", f"{s['total']:,}", f"{s['quarantined']:,}"]
        for name, s in data.status["stages"].items()
        if s["total"]
    ]
    table = html_table(["stage", "committed", "shards", "quarantined"], rows, (1, 2, 3))
    return f"<details><summary>Shards by stage</summary>{table}</details>"


def again(data: RunData) -> str:
    """How to run it again, and the whole config."""
    config = {k: v for k, v in data.config.items() if k != "versions"}
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return (
        "<pre class='command'>edgesweep run config.yaml</pre>"
        f"<details><summary>config.yaml, as resolved</summary><pre>{escape(text)}</pre></details>"
    )

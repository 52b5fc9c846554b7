"""The sections about the run itself: identity, faults, how to run it again."""

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape

import pandas as pd
import yaml

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.faults import faults
from edgesweep.dashboards.pages import Section, Table


def section(data: RunData) -> Iterator[Section]:
    yield Section(
        "run",
        "The run",
        "What was run, by what, and what went wrong on the way.",
        (identity(data),),
    )
    yield Section(
        "again",
        "Run it again",
        "Save the config below as <code>config.yaml</code>. The same config gives the same run id, "
        "and on the same kind of processor the same numbers, bit for bit.",
        (again(data),),
    )


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
        "is not promised.</p>" + Table(["stage", "versions", "shards"], rows, (2,)).html()
    )


def _stages(data: RunData) -> str:
    rows = [
        [escape(name), f"{s['committed']:,}", f"{s['total']:,}", f"{s['quarantined']:,}"]
        for name, s in data.status["stages"].items()
        if s["total"]
    ]
    table = Table(["stage", "committed", "shards", "quarantined"], rows, (1, 2, 3)).html()
    return f"<details><summary>Shards by stage</summary>{table}</details>"


def again(data: RunData) -> str:
    """How to run it again, and the whole config."""
    config = {k: v for k, v in data.config.items() if k != "versions"}
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return (
        "<pre class='command'>edgesweep run config.yaml</pre>"
        f"<details><summary>config.yaml, as resolved</summary><pre>{escape(text)}</pre></details>"
    )

"""The words of the report's head: its summary and its warnings."""

from html import escape

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.headline import Headline, headline, named_in_config
from edgesweep.dashboards.names import method_name, metric_name, share, varying
from edgesweep.dashboards.searched import leading
from edgesweep.dashboards.series import VARIANTS, with_series
from edgesweep.dashboards.skills import can, in_words, skills

LEVELS = (0.8, 0.95)
#: how it was found what sections need
BY_SEARCH = {"bisect": "by the published search", "robust": "by the robust rule"}
#: what decides a circuit beside its method
CHOOSES = ("nodes", "build_patch", "build_metric", "aggregation", "selection")


def summary(data: RunData) -> str:
    """One paragraph in plain words."""
    found = headline(data)
    if found is None:
        return _nothing_measured(data)
    best = found.row
    kind = data.kinds[best["nodes"]]
    method = method_name(best["method"], best["steps"], kind.methods, long=True)
    scored = data.scores_nodes(best["cell"])
    chosen = "nodes, and all edges among them," if scored else "edges"
    return (
        f"{_claim(found)} {_chosen_on(best)} Its {chosen} were ranked by "
        f"{escape(method)}{escape(_how_chosen(data, best))}; all others were cut and fed "
        f"{escape(best['eval_patch'])} values ({escape(best['ablation'])} ablation). "
        f"{_of_how_many(data)}"
    )


def _nothing_measured(data: RunData) -> str:
    needed = data.layered.get("edges_needed")
    if not data.cells and needed is not None:
        return _interactions(needed)
    areas = data.rois.get("region_areas")
    if not data.cells and areas is not None and len(areas):
        return _regions(data, data.config["evaluate"]["eval_patch"][0])
    shards = data.status["shards"]
    if data.results.empty or shards["committed"] < shards["total"]:
        done = f"{shards['committed']:,} of {shards['total']:,} shards are done"
        none = "no results are written" if data.results.empty else "nothing is concluded"
        return f"This run is not finished: {done}, and {none} yet."
    return (
        "This run says nothing of how faithful a circuit is: under the condition that it leads "
        "with, none with an edge was measured whose faithfulness is defined and does not "
        "overshoot; values are not finite, the model does no more than the empty circuit, or a "
        "search found one circuit and no curve."
    )


def _interactions(needed: pd.DataFrame) -> str:
    """What the sections need, of a run of interaction graphs alone."""
    searched = leading(needed)
    if searched.empty:
        return "No section of this run was searched for how many of its interactions are needed."
    first = searched.iloc[0]
    told = "; ".join(
        f"{escape(str(source))} → {escape(str(target))}: "
        + ", ".join(
            f"{r['basis']} {r['edges']:,} of {r['possible']:,}" for r in some.to_dict("records")
        )
        for (source, target), some in searched.head(9).groupby(["source", "target"], sort=False)
    )
    return (
        f"To stay within {first['within']:g} of its {escape(first['metric'])} of "
        f"{first['base']:.4g}, {escape(first['model'])} needs so many interactions of a section, "
        f"{BY_SEARCH[first['search']]}: <b>{told}</b>."
    )


def _regions(data: RunData, patch: str) -> str:
    """What the block model found of the first site that has all, and whether that is more than
    random blocks are."""
    fits, areas = data.rois["region_fits"], data.rois["region_areas"]
    have = set(fits["units"]) & set(areas["units"])
    first = next(about["key"] for about in data.plan["rois"] if about["key"] in have)
    chains = fits[(fits["units"] == first) & (fits["chain"] >= 0)]
    fit = chains.loc[chains["length"].idxmin()]
    what = f"{escape(fit['site'])} of {escape(fit['model'])} on {escape(fit['task'])}"
    found = (
        f"The block model parts the {fit['n_live']:,} live of {fit['n_units']:,} units of {what} "
        f"into <b>{fit['n_blocks']:,} regions</b>."
    )
    mine = (areas["units"] == fit["units"]) & (areas["partition"] == "sbm")
    rows = areas[mine & (areas["side"] == "ablate") & (areas["eval_patch"] == patch)]
    if rows.empty or pd.isna(rows["beside_random"].iloc[0]):
        return found
    row = rows.iloc[0]
    return (
        f"{found} With each input's strongest regions gone first ({escape(patch)} patch), the area "
        f"under accuracy against the share of units is <b>{row['area']:.3f}</b>; that of random "
        f"blocks of the same sizes is {row['area'] - row['beside_random']:.3f} (difference "
        f"{row['beside_random']:+.3f} [{row['beside_low']:+.3f}, {row['beside_high']:+.3f}]; less "
        "is better)."
    )


def _claim(found: Headline) -> str:
    """What the circuit does of what the model does, task by task; or why nothing is claimed."""
    best = found.row
    size, part = f"{best['n_edges']:,} of {best['n_edges_possible']:,} edges", _shares(best)
    if found.objection:
        return (
            f"<b>Nothing is claimed of the leading circuit</b>, {size} ({part}): "
            f"{escape(found.objection)}."
        )
    model = escape(best["model"])
    by = escape(metric_name(best["metric"]))
    if not found.tasks:
        kept = f"{_phi(found, 'all')} of what {model} does on {escape(best['task'])}, by {by}"
    else:
        *some, last = (f"{_phi(found, task)} on {escape(task)}" for task in found.tasks)
        kept = (
            f"{', '.join(some)} and {last} of what {model} does by {by}: "
            f"{_phi(found, 'macro')} in the mean over tasks, {_phi(found, 'worst')} on the worst "
            f"(of all prompts pooled {share(found.by_subset['all']['faithfulness'])})"
        )
    on = f"{best['n_inputs']:,} prompts that were used neither to rank edges nor to choose it"
    if best["chosen_on"] == "all":
        on = f"{best['n_inputs']:,} prompts that were not used to rank edges, but chose it too"
    return f"<b>{size} ({part})</b> keep {kept}, on {on}."


def _shares(best: pd.Series) -> str:
    """Of the edges that the sites allow, and where that is less, of those among found nodes."""
    n, possible, found = (best[c] for c in ("n_edges", "n_edges_possible", "n_edges_among_found"))
    of_found = f"; {share(n / found)} of those among the nodes that were found"
    return f"{share(n / max(possible, 1))}{of_found if 0 < found < possible else ''}"


def _phi(found: Headline, subset: str) -> str:
    """φ of a subset in percent, with its interval."""
    told = found.by_subset[subset]
    low, high = told["low"], told["high"]
    ends = "" if pd.isna(low) or pd.isna(high) else f" [{share(low)}, {share(high)}]"
    return f"<b>{share(told['faithfulness'])}</b>{ends}"


def _chosen_on(best: pd.Series) -> str:
    where = f"{best['n_choosing']:,} {'prompts' if best['chosen_on'] == 'all' else 'other prompts'}"
    level = f"φ ≥ {best['level']:g}"
    if best["reached"]:
        return (
            f"It is the smallest measured circuit from which on all reach {level} in the mean on "
            f"{where}."
        )
    return f"No measured circuit reaches {level} on {where} and stays there; this one came nearest."


def _of_how_many(data: RunData) -> str:
    """That it is one condition, and whose choice."""
    n = len(with_series(data.results)[["cell", *_VARIED]].drop_duplicates())
    if n < 2:
        return ""
    how = "which the config names" if named_in_config(data) else "the first of each axis"
    return f"This is one of {n:,} conditions, {how}; none was picked for its result."


_VARIED = ("aggregation", "selection", "ablation", "eval_patch", "metric")


def _how_chosen(data: RunData, best: pd.Series) -> str:
    """What else than the method decided the circuit, where the run has several."""
    told = [c for c in varying(data.results, CHOOSES) if best[c]]
    words = "; ".join(f"{VARIANTS[c]}: {best[c]}" for c in told)
    return f" ({words})" if words else ""


def warnings(data: RunData) -> str:
    """What a reader must know before the figures."""
    found = [
        f"{row['model']} cannot do {row['task']} (accuracy {in_words(row['accuracy'])}, logit "
        f"difference {in_words(row['logit_diff'])}): its circuits explain little."
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

"""The words of the report's head: its summary and its warnings."""

from html import escape

import numpy as np
import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.names import decimal, method_name, metric_name, share, varying
from edgesweep.dashboards.series import VARIANTS, default_metric, with_series
from edgesweep.dashboards.skills import can, in_words, skills

LEVELS = (0.8, 0.95)
#: what decides a circuit beside its method
CHOOSES = ("nodes", "build_patch", "build_metric", "aggregation", "selection")


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
    kind = data.kinds[best["nodes"]]
    method = method_name(best["method"], best["steps"], kind.methods, long=True)
    scored = data.scores_nodes(best["cell"])
    chosen = "nodes, and all edges among them," if scored else "edges"
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
    size = f"{best['n_edges']:,} of {best['n_edges_possible']:,} edges ({share(best['density'])}"
    if best["n_edges_among_found"] < best["n_edges_possible"]:
        size += f"; {share(best['density_among_found'])} of those among the nodes that were found"
    size += ")"
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

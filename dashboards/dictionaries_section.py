"""The section of dictionaries: what takes each site apart, and how well."""

from collections.abc import Mapping
from html import escape
from typing import Any

from dashboards.data import RunData
from dashboards.pages import Page

#: field of a fit -> its head
HEADS = {
    "variance_explained": "variance explained",
    "l0": "features on",
    "dead_share": "never on",
    "loss_recovered": "loss recovered",
}


def add_dictionaries(page: Page, data: RunData) -> None:
    """Adds the section to the page; nothing where nodes are heads."""
    chosen: Mapping[str, Any] = data.config.get("features", {}).get("dictionaries", {})
    if not chosen:
        return
    head = "".join(f"<th class=n>{h}</th>" for h in HEADS.values())
    rows = [_row(site, told, _fit(data, site)) for site, told in chosen.items()]
    page.section(
        "dictionaries",
        "Dictionaries",
        "A site's value is taken apart into features of a dictionary and what is left over, its "
        "error. Of those that the run trained: the share of the variance that the features "
        "explain, how many are on at a position, the share that is never on, and the share of what "
        "the next-token loss suffers from the site's mean that the features alone recover, on the "
        "prompts of training.",
        f"<div class='scroll'><table><tr><th>site</th><th>dictionary</th>{head}</tr>"
        f"{''.join(rows)}</table></div>",
    )


def _fit(data: RunData, site: str) -> Mapping[str, float]:
    """How well the dictionary of a site fits; nothing where it was not trained here."""
    return next((fit for shard, fit in data.fits.items() if shard.startswith(f"{site}-")), {})


def _row(site: str, told: Any, fit: Mapping[str, float]) -> str:
    cells = "".join(f"<td class=n>{_number(fit.get(name))}</td>" for name in HEADS)
    return f"<tr><td>{escape(site)}</td><td>{escape(_words(told))}</td>{cells}</tr>"


def _words(told: Any) -> str:
    if isinstance(told, str):
        return told
    if told["kind"] == "pca":
        return "principal axes"
    extra = f", {told['k']} at a position" if told["kind"] == "topk" else ""
    return f"{told['kind']}, {told['features']:,} features{extra}, trained"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"

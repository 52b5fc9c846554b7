"""The report: one self-contained page of a run, finished or not. It needs no network."""

import json
from html import escape
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from edgesweep.dashboards.about import again, identity
from edgesweep.dashboards.blocks_section import add_blocks
from edgesweep.dashboards.circuits_section import add_circuits
from edgesweep.dashboards.curves_section import (
    add_completeness,
    add_curves,
    add_skill,
    add_smallest,
)
from edgesweep.dashboards.data import RunData, load_run
from edgesweep.dashboards.dictionaries_section import add_dictionaries
from edgesweep.dashboards.estimate_section import add_estimates
from edgesweep.dashboards.interpolation_section import add_interpolation
from edgesweep.dashboards.methods_section import add_methods
from edgesweep.dashboards.minimality_section import add_minimality
from edgesweep.dashboards.overlap_section import add_overlap
from edgesweep.dashboards.pages import Page
from edgesweep.dashboards.roc_section import add_known
from edgesweep.dashboards.scores_section import add_histograms
from edgesweep.dashboards.style import IN_THE_DARK
from edgesweep.dashboards.text import summary, warnings
from edgesweep.storage import RunDirectory
from edgesweep.storage.atomic import replace
from edgesweep.storage.manifest import vouch_for

TEMPLATE = Path(__file__).with_name("page.html")
SECTIONS = (
    add_curves,
    add_completeness,
    add_smallest,
    add_skill,
    add_methods,
    add_overlap,
    add_known,
    add_estimates,
    add_interpolation,
    add_circuits,
    add_minimality,
    add_dictionaries,
    add_histograms,
    add_blocks,
)


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write the page of a run.

    Args:
        run_dir: the run's directory.
        out: where to; if None `report.html` in the run's directory, for which the manifest of a
            finished run then vouches.

    Returns:
        Where it was written.

    Raises:
        StorageError: no run there, a file of it is not what its driver wrote, or the page cannot
            be written.
    """
    run, data = RunDirectory.open(run_dir), page_bytes(run_dir)
    if out is not None and out.resolve() != run.report.resolve():
        replace(out, data)
        return out
    replace(run.report, data)
    vouch_for(run, run.report.name, data)
    return out or run_dir / run.report.name


def page_bytes(run_dir: Path, state: str | None = None) -> bytes:
    """The page, of a run that is about to be in `state`; in the one that it is in if None."""
    return render(load_run(run_dir, state)).encode()


def render(data: RunData) -> str:
    """The page as text."""
    page = Page()
    for add in SECTIONS:
        add(page, data)
    _identity(page, data)
    config = data.config
    what = f"{', '.join(config['sweep']['model'])} on {', '.join(config['sweep']['task'])}"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{config['name']}: edgesweep"),
        heading=escape(config["name"]),
        subheading=f"{escape(what)}. Run <code>{escape(data.status['run_id'])}</code>, "
        f"{escape(data.status['state'])}.",
        summary=summary(data),
        warnings=warnings(data),
        links="".join(page.links),
        plotly=get_plotlyjs(),
        in_the_dark=json.dumps(IN_THE_DARK),
        sections="\n".join(page.sections) + page.data(),
    )


def _identity(page: Page, data: RunData) -> None:
    page.section(
        "run", "The run", "What was run, by what, and what went wrong on the way.", identity(data)
    )
    page.section(
        "again",
        "Run it again",
        "Save the config below as <code>config.yaml</code>. The same config gives the same run id, "
        "and on the same kind of processor the same numbers, bit for bit.",
        again(data),
    )

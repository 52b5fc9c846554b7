"""The report: one self-contained page of a run, finished or not. It needs no network."""

import json
from html import escape
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from edgesweep.dashboards.data import RunData, load_run
from edgesweep.dashboards.pages import figures_json
from edgesweep.dashboards.sections import SECTIONS
from edgesweep.dashboards.style import IN_THE_DARK
from edgesweep.dashboards.summary import summary, warnings
from edgesweep.storage import RunDirectory
from edgesweep.storage.atomic import replace
from edgesweep.storage.manifest import vouch_for

TEMPLATE = Path(__file__).with_name("page.html")


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
    sections = [section for of in SECTIONS for section in of(data)]
    config = data.config
    what = f"{', '.join(config['sweep']['model'])} on {', '.join(config['sweep']['task'])}"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{config['name']}: edgesweep"),
        heading=escape(config["name"]),
        subheading=f"{escape(what)}. Run <code>{escape(data.status['run_id'])}</code>, "
        f"{escape(data.status['state'])}.",
        summary=summary(data),
        warnings=warnings(data),
        links="".join(section.link_html() for section in sections),
        plotly=get_plotlyjs(),
        in_the_dark=json.dumps(IN_THE_DARK),
        sections="\n".join(s.html() for s in sections) + figures_json(sections),
    )

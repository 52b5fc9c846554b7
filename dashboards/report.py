"""The report: one self-contained page of a run, finished or not. It needs no network."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from edgesweep.dashboards.data import RunData, load_run
from edgesweep.dashboards.index import MOST_CELLS, Part, note, parts_of, table
from edgesweep.dashboards.pages import Section, figures_json
from edgesweep.dashboards.sections import SECTIONS, run, skill
from edgesweep.dashboards.sections.layered import LAYERED
from edgesweep.dashboards.sections.regions import ROIS
from edgesweep.dashboards.style import IN_THE_DARK
from edgesweep.dashboards.summary import summary, warnings
from edgesweep.storage import RunDirectory
from edgesweep.storage.atomic import replace
from edgesweep.storage.layout import REPORT
from edgesweep.storage.manifest import vouch_for

TEMPLATE = Path(__file__).with_name("page.html")


def write_report(run_dir: Path | str, out: Path | None = None) -> Path | str:
    """Write the page of a run, and beside it those of its models and tasks where it has many cells.

    Args:
        run_dir: the run's directory, or its address.
        out: where to; if None `report.html` in the run's directory, for which the manifest of a
            finished run then vouches.

    Returns:
        Where it was written.

    Raises:
        StorageError: no run there, a file of it is not what its driver wrote, or the page cannot
            be written.
    """
    directory = RunDirectory.open(run_dir)
    if out is not None and str(out.resolve()) != f"{directory.address}/{REPORT}":
        for name, data in pages(run_dir, index=out.name):
            replace(out.parent / name, data)
        return out
    for name, data in pages(run_dir):
        (directory.root / name).write(data)
        vouch_for(directory, name, data)
    where = str(directory.report)
    return out or (Path(where) if isinstance(directory.address, Path) else where)


def pages(
    run_dir: Path | str, state: str | None = None, index: str = REPORT
) -> Iterator[tuple[str, bytes]]:
    """The pages of a run, that is about to be in `state`, or is in the one that it is in.

    Yields:
        Its place in the run's directory, and a page; last `index`, that of all of the run.
    """
    data = load_run(run_dir, state)
    if len(data.cells) <= MOST_CELLS:
        yield index, render(data).encode()
        return
    parts = parts_of(data)
    for part in parts:
        above = f"<a href='../{escape(index)}'>All of the run</a>. "
        yield part.place, render(data.of_cells(part.cells), part.heading, above).encode()
    yield index, render_index(data, parts).encode()


def render(data: RunData, what: str = "", above: str = "") -> str:
    """A page as text: `what` it is of, if not of all of the run, with HTML before that."""
    of_cells = SECTIONS if data.cells else (run.section,)
    return _filled(
        data, [section for of in (*LAYERED, *ROIS, *of_cells) for section in of(data)], what, above
    )


def render_index(data: RunData, parts: Sequence[Part]) -> str:
    """The page of a run whose models and tasks have pages."""
    listed = Section("pages", "Models and tasks", note(data), (table(data, parts),))
    rest = [section for of in (skill.section, run.section) for section in of(data)]
    return _filled(data, [listed, *rest])


def _filled(data: RunData, sections: list[Section], what: str = "", above: str = "") -> str:
    config = data.config
    of_run = f"{', '.join(config['sweep']['model'])} on {', '.join(config['sweep']['task'])}"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{config['name']}: edgesweep"),
        heading=escape(config["name"]),
        subheading=f"{above}{escape(what or of_run)}. Run "
        f"<code>{escape(data.status['run_id'])}</code>, {escape(data.status['state'])}.",
        summary=summary(data),
        warnings=warnings(data),
        links="".join(section.link_html() for section in sections),
        plotly=get_plotlyjs(),
        in_the_dark=json.dumps(IN_THE_DARK),
        sections="\n".join(s.html() for s in sections) + figures_json(sections),
    )

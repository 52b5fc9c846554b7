"""What a page is made of: sections, and as values their text, figures, menus and tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.io import to_json

from edgesweep.dashboards.style import GLYPHS, Mark


@dataclass(frozen=True)
class Figure:
    """A figure that is drawn at once.

    Attributes:
        name: by which the page's script finds it.
        what: what it shows, to who cannot see it.
        head: HTML above it.
    """

    name: str
    figure: go.Figure
    what: str
    head: str = ""


@dataclass(frozen=True)
class Choice:
    """One figure of several by their titles, and the menu that chooses it; `first` is drawn."""

    name: str
    label: str
    figures: Mapping[str, go.Figure]
    first: str


@dataclass(frozen=True)
class Side:
    """Figures side by side, `two` or `many` where there is room."""

    figures: Sequence[Figure]
    room: str = "two"


@dataclass(frozen=True)
class Table:
    """A table; its cells are HTML already.

    Attributes:
        numeric: columns that stand to the right.
        chosen: what the page's menus choose each row by, if they do.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()
    chosen: Sequence[Mapping[str, Any]] | None = None

    def html(self) -> str:
        metas = [choosable(meta) for meta in self.chosen] if self.chosen is not None else None
        opened = [f"<tr {meta}>" for meta in metas] if metas else ["<tr>"] * len(self.rows)
        body = "".join(
            f"{tr}{self._cells('td', row)}</tr>" for tr, row in zip(opened, self.rows, strict=True)
        )
        head = f"<tr>{self._cells('th', self.head)}</tr>"
        return f"<div class='scroll'><table>{head}{body}</table></div>"

    def _cells(self, tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in self.numeric else ''}>{v}</{tag}>"
            for i, v in enumerate(values)
        )


#: text is HTML already
Part = str | Figure | Choice | Side | Table


@dataclass(frozen=True)
class Section:
    """A section and the link to it.

    Attributes:
        anchor: of the link.
        title: text; `link` too, the title where it is empty.
        note: HTML.
    """

    anchor: str
    title: str
    note: str
    parts: tuple[Part, ...] = ()
    link: str = ""

    def figures(self) -> Iterator[tuple[str, go.Figure]]:
        """By the name of their place."""
        for part in self.parts:
            if isinstance(part, Figure):
                yield part.name, part.figure
            elif isinstance(part, Side):
                yield from ((one.name, one.figure) for one in part.figures)
            elif isinstance(part, Choice):
                yield from ((f"{part.name}{i}", f) for i, f in enumerate(part.figures.values()))

    def html(self) -> str:
        head = f"<h2>{escape(self.title)}</h2><p class='note'>{self.note}</p>"
        body = "".join(map(_html, self.parts))
        return f"<section id='{self.anchor}'>{head}{body}</section>"

    def link_html(self) -> str:
        return f"<a href='#{self.anchor}'>{escape(self.link or self.title)}</a>"


def figures_json(sections: Sequence[Section]) -> str:
    """All figures as JSON that is safe inside a script element."""
    figures = dict(pair for section in sections for pair in section.figures())
    told = ",".join(f"{json.dumps(name)}:{to_json(figure)}" for name, figure in figures.items())
    blob = "{" + told.replace("<", "\\u003c") + "}"
    return f"<script type='application/json' id='figures'>{blob}</script>"


def _html(part: Part) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Table):
        return part.html()
    if isinstance(part, Choice):
        return _choice(part)
    if isinstance(part, Figure):
        return _figure(part)
    return f"<div class='{part.room}'>{''.join(map(_figure, part.figures))}</div>"


def _figure(part: Figure) -> str:
    label = f"role='img' aria-label='{escape(part.what)}'"
    place = f"<div id='{part.name}' class='figure' data-figure='{part.name}' {label}></div>"
    return f"<div>{part.head}{place}</div>" if part.head else place


def _choice(part: Choice) -> str:
    options = {f"{part.name}{i}": title for i, title in enumerate(part.figures)}
    chosen = next(key for key, title in options.items() if title == part.first)
    menu = select(options, chosen, f"data-target='{part.name}'")
    label = escape(part.label)
    return (
        f"<div class='controls'><label>{label} {menu}</label></div>"
        f"<div id='{part.name}' class='figure' role='img' aria-label='{label}'></div>"
    )


# --- menus and legends -------------------------------------------------------------------------


def choosable(meta: Mapping[str, Any]) -> str:
    """The attribute by which the page's menus choose an element, as they choose a trace. What has
    no value ("") is shown whatever a menu chooses."""
    told = {k: str(v) for k, v in meta.items() if str(v)}
    return f"data-meta='{escape(json.dumps(told))}'"


def select(options: Mapping[str, str], chosen: str, attributes: str) -> str:
    """A menu; options map values to their text."""
    items = "".join(
        f"<option value='{escape(v)}'{' selected' if v == chosen else ''}>{escape(t)}</option>"
        for v, t in options.items()
    )
    return f"<select {attributes}>{items}</select>"


def swatch(colour: str, text: str) -> str:
    """One entry of a legend: a patch of colour."""
    return f"<li>{patch(colour)}{escape(text)}</li>"


def patch(colour: str) -> str:
    """A patch of colour, which the page lightens in the dark."""
    return f"<i class='swatch' style='background:{colour}' data-colour='{colour}'></i>"


def marker(mark: Mark) -> str:
    """A method's symbol in its colour."""
    shown = GLYPHS[mark.symbol]
    style = f"style='color:{mark.colour}' data-ink='{mark.colour}'"
    return f"<span class='marker' aria-hidden='true' {style}>{shown}</span>"


def entry(mark: Mark, text: str, meta: Mapping[str, Any] | None = None) -> str:
    """One entry of a legend: a method's symbol; `meta` if the menus choose it."""
    return f"<li {choosable(meta or {})}>{marker(mark)}{escape(text)}</li>"


def stroke(dash: str, text: str) -> str:
    """One entry of a legend: a line in the text's colour."""
    pattern = {"solid": "", "dash": "6 4", "dot": "2 3"}[dash]
    line = f"<line x1='0' y1='6' x2='30' y2='6' stroke-dasharray='{pattern}'/>"
    filled = "currentColor" if dash == "solid" else "var(--card)"
    point = f"<circle cx='15' cy='6' r='3.5' fill='{filled}'/>"
    drawn = f"<svg width='30' height='12' aria-hidden='true'>{line}{point}</svg>"
    return f"<li>{drawn}{escape(text)}</li>"


def glyph(symbol: str, text: str) -> str:
    """One entry of a legend: a marker in the text's colour."""
    return f"<li><span class='dim' aria-hidden='true'>{symbol}</span>{escape(text)}</li>"


def legend(*entries: str) -> str:
    """A legend outside its figures, which they can share and which wraps on a phone."""
    return f"<ul class='legend'>{''.join(entries)}</ul>"

"""Pieces of a page: sections, figures, menus and legends, and what the page's script finds by."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.io import to_json

from edgesweep.dashboards.style import GLYPHS, Mark


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


@dataclass
class Page:
    """Sections of the page and the figures they name."""

    sections: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    figures: dict[str, go.Figure] = field(default_factory=dict)

    def section(self, anchor: str, title: str, note: str, *parts: str, link: str = "") -> None:
        """Adds a section and the link to it (`link`, or its title). `note` and `parts` are HTML
        already, `title` and `link` are not."""
        head = f"<h2>{escape(title)}</h2><p class='note'>{note}</p>"
        self.sections.append(f"<section id='{anchor}'>{head}{''.join(parts)}</section>")
        self.links.append(f"<a href='#{anchor}'>{escape(link or title)}</a>")

    def figure(self, name: str, figure: go.Figure, what: str) -> str:
        """The place of a figure that is drawn at once; `what` says what it shows to who cannot
        see it."""
        self.figures[name] = figure
        label = f"role='img' aria-label='{escape(what)}'"
        return f"<div id='{name}' class='figure' data-figure='{name}' {label}></div>"

    def chooser(self, name: str, label: str, figures: Mapping[str, go.Figure], first: str) -> str:
        """The place of one figure of several, by their titles, and the menu that chooses it."""
        options = {f"{name}{i}": title for i, title in enumerate(figures)}
        self.figures.update(zip(options, figures.values(), strict=True))
        chosen = next(key for key, title in options.items() if title == first)
        menu = select(options, chosen, f"data-target='{name}'")
        return (
            f"<div class='controls'><label>{escape(label)} {menu}</label></div>"
            f"<div id='{name}' class='figure' role='img' aria-label='{escape(label)}'></div>"
        )

    def data(self) -> str:
        """The figures as JSON that is safe inside a script element."""
        figures = ",".join(f"{json.dumps(n)}:{to_json(f)}" for n, f in self.figures.items())
        blob = "{" + figures.replace("<", "\\u003c") + "}"
        return f"<script type='application/json' id='figures'>{blob}</script>"

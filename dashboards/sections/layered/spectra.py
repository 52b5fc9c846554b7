"""The eigenvalues of layers."""

from collections.abc import Iterator

import pandas as pd

from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.figures.layered import spectra
from edgesweep.dashboards.names import varying
from edgesweep.dashboards.pages import Choice, Section


def section(data: RunData) -> Iterator[Section]:
    """Variances and importance of each layer."""
    table = data.layered.get("spectra", pd.DataFrame())
    if table.empty:
        return
    of = ["model", "task", "layer"]
    told = varying(table, of[:2])
    figures = {
        " · ".join(str(dict(zip(of, key, strict=True))[c]) for c in (*told, "layer")): spectra(rows)
        for key, rows in table.groupby(of, sort=False)
    }
    cut = data.config["bases"]["cut"]
    unit = "of the largest" if cut["relative"] else "absolute"
    yield Section(
        "spectra",
        "Spectra of layers",
        "Eigenvalues of each layer's second moment (variance D) and of what its directions do to "
        "the "
        f"next layer (importance Λ). Directions below the cut, {cut['variance']:g} and "
        f"{cut['importance']:g} {unit}, are not kept; places that are not are thin crosses.",
        (Choice("spectrum", "layer", figures, next(iter(figures))),),
    )

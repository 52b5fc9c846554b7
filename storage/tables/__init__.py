"""Tables of a run: what each is (`registry`), its bytes (`parquet`), and what is there of one while
the run goes on (`parts`)."""

from edgesweep.storage.tables.layered import (
    DIRECTIONS,
    EDGES_NEEDED,
    INTERACTIONS,
    LAYERED,
    SECTION_CURVES,
    SPECTRA,
)
from edgesweep.storage.tables.parquet import TableWriter, from_parquet, to_parquet
from edgesweep.storage.tables.parts import has_parts, read_table, write_parts
from edgesweep.storage.tables.registry import (
    BLOCKS,
    CIRCUITS,
    DRAWN,
    EQUAL_PHI,
    HEADLINES,
    INTERPOLATION,
    KNOWN,
    MEASURES,
    MINIMALITY,
    NULLS,
    OVERLAP,
    REACH,
    RESULTS,
    ROC,
    STRUCTURE,
    TABLES,
    Table,
)

__all__ = [
    "BLOCKS",
    "CIRCUITS",
    "DIRECTIONS",
    "DRAWN",
    "EDGES_NEEDED",
    "EQUAL_PHI",
    "HEADLINES",
    "INTERACTIONS",
    "INTERPOLATION",
    "KNOWN",
    "LAYERED",
    "MEASURES",
    "MINIMALITY",
    "NULLS",
    "OVERLAP",
    "REACH",
    "RESULTS",
    "ROC",
    "SECTION_CURVES",
    "SPECTRA",
    "STRUCTURE",
    "TABLES",
    "Table",
    "TableWriter",
    "from_parquet",
    "has_parts",
    "read_table",
    "to_parquet",
    "write_parts",
]

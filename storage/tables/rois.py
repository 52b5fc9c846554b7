"""The tables of regions of interest: units of a site whose attributions go together."""

from __future__ import annotations

from edgesweep.storage.tables.registry import Table, columns_of

_OF = "units model task site build_patch steps:int rule"
#: a partition; `asked`: the number of blocks, 0 for as many as the block model has
_PARTITION = f"{_OF} partition asked:int n_blocks:int draw:int"

REGIONS = Table(
    "regions",
    "a unit of a site, its region in a partition (the first draw of random ones), and the class of "
    "which that region says most; `roi` and `label` −1 of units that are dead",
    columns_of(f"{_PARTITION} unit:int roi:int label:int dead:bool"),
    key=("units", "partition", "asked", "draw", "unit"),
)

REGION_CLASSES = Table(
    "region_classes",
    "what a region says of a class: its mean attribution over the build inputs of that class",
    columns_of(f"{_PARTITION} roi:int n_units:int label:int class:int attribution:float"),
    key=("units", "partition", "asked", "draw", "roi", "class"),
)

REGION_ABLATION = Table(
    "region_ablation",
    "a metric on evaluation inputs without regions. `side`: ablate each input's strongest share τ "
    "of them, keep only these; without those of class `of`, only these. `on`: inputs of a class, "
    "−1 for all; `share_of_units`: of live units that took their patch value; low and high over "
    "inputs",
    columns_of(
        f"{_PARTITION} eval_patch side tau:float of:int on:int n_regions:int share_of_units:float "
        "metric value:float low:float high:float n_inputs:int"
    ),
    key=(
        *("units", "partition", "asked", "draw", "eval_patch"),
        *("side", "tau", "of", "on", "metric"),
    ),
)

REGION_AREAS = Table(
    "region_areas",
    "the area under accuracy against the share of units that are gone, each input's strongest "
    "regions first (`ablate`) or last (`keep`); of random blocks the mean over draws, with their "
    "spread. `beside_random`: less that of random blocks of as many; low and high over inputs",
    columns_of(
        f"{_OF} partition asked:int n_blocks:int eval_patch side area:float low:float high:float "
        "spread:float beside_random:float beside_low:float beside_high:float n_inputs:int"
    ),
    key=("units", "partition", "asked", "eval_patch", "side"),
)

REGION_FITS = Table(
    "region_fits",
    "a chain of the block model of a site's units, or graph-tool's judgement (chain −1: `length` "
    "after its own moves, `given` of what it was handed); `agreement` with the shortest chain "
    "(adjusted mutual information)",
    columns_of(
        f"{_OF} chain:int n_blocks:int length:float given:float agreement:float engine "
        "n_units:int n_live:int n_dead:int n_clipped:int"
    ),
    key=("units", "chain"),
)

REGION_VIEWS = Table(
    "region_views",
    "one of the build inputs of which a region says most",
    columns_of(f"{_OF} partition roi:int label:int rank:int input:int attribution:float"),
    key=("units", "partition", "roi", "rank"),
)

REGION_PICTURES = Table(
    "region_pictures",
    "a number of an input, and what it makes of a region's attribution (gradient times input), in "
    "the mean over inputs of the region's class",
    columns_of(
        f"{_OF} partition roi:int label:int channel:int row:int column:int attribution:float"
    ),
    key=("units", "partition", "roi", "channel", "row", "column"),
)

ROIS = (
    *(REGIONS, REGION_CLASSES, REGION_ABLATION, REGION_AREAS),
    *(REGION_FITS, REGION_VIEWS, REGION_PICTURES),
)

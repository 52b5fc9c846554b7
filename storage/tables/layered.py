"""The tables of interaction graphs: node layers of a network, in bases of directions."""

from __future__ import annotations

from edgesweep.storage.tables.registry import Table, columns_of

_GRAPH = "graph model task basis steps:int rule"

EDGES_NEEDED = Table(
    "edges_needed",
    "how many interactions of a section a network needs to stay within a bound of its score "
    "(`edges` asked for, `kept` with ties), and what it scores with them: by the published search "
    "(`bisect`), and by the `robust` rule with an interval; from the first layer to the last of "
    "all sections at once, `own` if each keeps what it needs by itself",
    columns_of(
        f"{_GRAPH} source target metric within:float search edges:int kept:int low:float "
        "high:float score:float possible:int base:float n_inputs:int"
    ),
    key=("graph", "source", "target", "search"),
)

NEEDED_PAIRS = Table(
    "needed_pairs",
    "how many more interactions one basis needs than another, by the robust rule, with an interval "
    "over the same resamples of inputs; `fewer`, `more`: the share of these in which a needs so",
    columns_of(
        "model task steps:int rule source target basis_a basis_b edges_a:int edges_b:int "
        "difference:int low:float high:float fewer:float more:float n_inputs:int"
    ),
    key=("model", "task", "steps", "rule", "source", "target", "basis_a", "basis_b"),
)

SECTION_CURVES = Table(
    "section_curves",
    "the score of a network that keeps so many interactions of one section; `step` of the "
    "published search, 0 where it did not ask; `negative`: variances that came out negative, and "
    "counted as 0",
    columns_of(f"{_GRAPH} source target edges:int kept:int score:float step:int negative:int"),
    key=("graph", "source", "target", "edges"),
)

DIRECTIONS = Table(
    "directions",
    "the score of a network one of whose layers keeps its first directions alone; `alias`: what "
    "the published code calls the layer",
    columns_of("model task basis layer alias directions:int score:float"),
    key=("model", "task", "basis", "layer", "directions"),
)

SPECTRA = Table(
    "spectra",
    "an eigenvalue of a layer: of its variances, or of its directions' importance (`spectrum`)",
    columns_of("model task basis layer alias of place:int value:float kept:bool"),
    key=("model", "task", "basis", "layer", "of", "place"),
)

INTERACTIONS = Table(
    "interactions",
    "one of the strongest interactions of a section, with its standard error over inputs; "
    "`residual`: "
    "how far completeness is missed in the section",
    columns_of(f"{_GRAPH} source target mean_square:float standard_error:float residual:float"),
    key=("graph", "source", "target"),
)

LABELS = Table(
    "labels",
    "a term of what a direction is of, and its share: by `kind` a Fourier term of its inputs, "
    "position, a token that it is read at or one that it writes",
    columns_of("model task basis layer node direction:int rank:int kind term share:float"),
    key=("model", "task", "basis", "layer", "direction", "rank"),
)

NETWORK_SCORES = Table(
    "network_scores",
    "how well a network does as it is on the prompts of a split: the mean score over inputs, with "
    "its standard error",
    columns_of("model task split metric score:float standard_error:float n_inputs:int"),
    key=("model", "task", "split", "metric"),
)

_PARTITION = f"{_GRAPH} method resolution:float"

MODULES = Table(
    "modules",
    "a direction, and its module or block in an interaction graph: by `leiden` at a resolution, or "
    "by a block model (`sbm`)",
    columns_of(f"{_PARTITION} layer node module:int"),
    key=("graph", "method", "resolution", "node"),
)

MODULARITY = Table(
    "modularity",
    "a partition of an interaction graph: modularity `q` and the `agreement` of seeds (adjusted "
    "mutual information), beside `rewired` graphs of the same degrees on average and at the most, "
    "with p; of a block model its description length, and that of a block a layer, in nats. Nodes "
    "are those with an edge, modules those of several",
    columns_of(
        f"{_PARTITION} n_nodes:int n_edges:int n_modules:int q:float agreement:float rewired:float "
        "rewired_largest:float p:float n_rewired:int length:float one_a_layer:float"
    ),
    key=("graph", "method", "resolution"),
)

LAYERED = (
    *(EDGES_NEEDED, NEEDED_PAIRS, SECTION_CURVES, DIRECTIONS),
    *(SPECTRA, INTERACTIONS, LABELS, NETWORK_SCORES, MODULES, MODULARITY),
)

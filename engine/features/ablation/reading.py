"""Reading features off streams: many rows, each asked for a few features of a large dictionary.

Rows are taken in runs that ask for at most `MOST` features together, and a run is encoded for the
union of them; a row that asks for more is encoded by itself. So what nobody asked for costs little
against the rows' own way through the network, and no call is smaller than it must be.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from edgesweep.engine.dictionaries.base import Dictionary
from edgesweep.engine.features.ablation.planning import Requests
from edgesweep.engine.network.base import Value

MOST = 32


def read_features(
    dictionary: Dictionary,
    streams: Value,
    features: Int[Tensor, " places"],
    requests: Requests,
    most_rows: int,
) -> Float[Tensor, "requests positions"]:
    """The requested features at every position.

    Args:
        streams: `[rows, positions, width]`.
        features: number of each place in the dictionary.
        most_rows: rows that may be encoded at once.
    """
    out = streams.new_empty(len(requests), streams.shape[1])
    for first, last in _runs(requests.row, most_rows):
        row, place = requests.row[first:last], requests.place[first:last]
        places, column = np.unique(place, return_inverse=True)
        rows = streams[int(row[0]) : int(row[-1]) + 1]
        values = dictionary.encode_some(rows, features[places])
        out[first:last] = values.transpose(1, 2)[row - row[0], column]
    return out


def _runs(row: Int[np.ndarray, " requests"], most_rows: int) -> Iterator[tuple[int, int]]:
    """Spans of requests, sorted by row, that are encoded together."""
    bounds = np.append(np.flatnonzero(np.diff(row, prepend=-1)), len(row))
    first = 0
    for start, stop in pairwise(bounds):
        if start > first and (stop - first > MOST or row[start] - row[first] >= most_rows):
            yield first, int(start)
            first = int(start)
    if first < len(row):
        yield first, len(row)

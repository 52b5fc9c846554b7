"""What a run's searches for sizes have found (`evaluate.reach`), for whoever speaks of a curve."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

#: what a search is of
SEARCHED = ("cell", "aggregation", "selection", "ablation", "eval_patch", "metric")


class Searched:
    """Answers by curve and level. Of the curves of all inputs; others have none.

    Args:
        reach: the run's table, maybe without rows.
    """

    def __init__(self, reach: pd.DataFrame) -> None:
        self.levels = sorted(set(reach["level"])) if len(reach) else []
        rows = reach.to_dict("records") if len(reach) else []
        self._rows = {(*(row[c] for c in SEARCHED), row["level"]): row for row in rows}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def answer(self, curve: Mapping[Hashable, Any], level: float) -> Mapping[Hashable, Any] | None:
        """Its row of the table, with `reached`; None where the curve was not searched."""
        if curve.get("subset", "all") != "all":
            return None
        return self._rows.get((*(curve.get(c) for c in SEARCHED), level))

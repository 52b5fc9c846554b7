"""Blocks of units under the weighted block model: their description length, moves, and cuts."""

from edgesweep.engine.regions.blockstate.cut import Cut
from edgesweep.engine.regions.blockstate.state import SPARE, BlockState, Weights

__all__ = ["SPARE", "BlockState", "Cut", "Weights"]

"""Running circuits of heads and MLPs by edge ablation."""

from edgesweep.engine.ablation.circuits import Masks, ablated_logits

__all__ = ["Masks", "ablated_logits"]

"""Training: dictionaries on the activations of a site, and feed-forward networks on labels."""

from edgesweep.engine.training.bases import BasisTraining, interaction_directions
from edgesweep.engine.training.dictionaries import (
    Training,
    activations,
    check_training,
    train,
)
from edgesweep.engine.training.fits import Baseline, Fit, fit_of, spliced_losses
from edgesweep.engine.training.networks import (
    NetworkTraining,
    Say,
    accuracy,
    save_network,
    train_network,
)
from edgesweep.engine.training.unfinished import Unfinished

__all__ = [
    "Baseline",
    "BasisTraining",
    "Fit",
    "NetworkTraining",
    "Say",
    "Training",
    "Unfinished",
    "accuracy",
    "activations",
    "check_training",
    "fit_of",
    "interaction_directions",
    "save_network",
    "spliced_losses",
    "train",
    "train_network",
]

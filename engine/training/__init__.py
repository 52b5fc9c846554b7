"""Training: dictionaries on the activations of a site, and feed-forward networks on labels."""

from edgesweep.engine.training.dictionaries import (
    Training,
    activations,
    check_training,
    fit_of,
    spliced_losses,
    train,
)
from edgesweep.engine.training.networks import (
    NetworkTraining,
    accuracy,
    save_network,
    train_network,
)

__all__ = [
    "NetworkTraining",
    "Training",
    "accuracy",
    "activations",
    "check_training",
    "fit_of",
    "save_network",
    "spliced_losses",
    "train",
    "train_network",
]

"""The models of a run as the node has them that a worker is on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgesweep.engine.model import ModelSource
from edgesweep.engine.model.nodecache import ensure
from edgesweep.storage.stores import open_store

if TYPE_CHECKING:
    from edgesweep.sweeps.config.schema import Execution

#: in a run: models that were staged with it
MODELS = "models"


def models_address(run: str, execution: Execution) -> str:
    """Where the models of a run may be staged."""
    return execution.models_url or f"{run.rstrip('/')}/{MODELS}"


def on_this_node(source: ModelSource, staged: str) -> ModelSource:
    """A model whose folder this node has, with the digest that the run was planned with.

    Args:
        staged: where models may be staged.

    Raises:
        ModelError: it is not to be had here, in one line with all that was tried.
    """
    return replace(source, path=ensure(source, open_store(staged)))

"""A training that may stop at any time and go on with the same bytes: weights, optimiser, rate,
generator and losses in one file, written whole now and then between epochs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Protocol

import torch

#: seconds between two writes
EVERY_S = 5.0


class Stateful(Protocol):
    """A network, an optimiser, a schedule."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


class Unfinished:
    """The file of a training.

    Args:
        path: of the file; None: nothing is kept.
        request: what is trained, and how; a file of another request is an error.

    Raises:
        ValueError: in `restore`, the file is of another request or cannot be read.
    """

    def __init__(self, path: Path | None, request: str = "", every_s: float | None = None) -> None:
        self._path, self._request = path, request
        self._every_s = EVERY_S if every_s is None else every_s
        self._kept = time.monotonic()

    def restore(self, *parts: Stateful) -> list[float]:
        """Sets the parts and the generator as they were; the losses until then."""
        if self._path is None or not self._path.exists():
            return []
        try:
            state = torch.load(self._path, weights_only=True)
        except Exception as error:  # what a half-written or foreign file makes torch raise
            raise ValueError(
                f"{self._path} cannot be read ({type(error).__name__}); delete it"
            ) from None
        if state["request"] != self._request:
            raise ValueError(
                f"{self._path} is an unfinished training with other settings or data; repeat them, "
                "or delete it"
            )
        for part, kept in zip(parts, state["parts"], strict=True):
            part.load_state_dict(kept)
        torch.set_rng_state(state["generator"])
        losses: list[float] = state["losses"]
        return losses

    def keep(self, losses: list[float], *parts: Stateful) -> None:
        """Writes it, if the last time is long enough ago."""
        if self._path is None or time.monotonic() - self._kept < self._every_s:
            return
        state = {
            "request": self._request,
            "losses": losses,
            "generator": torch.get_rng_state(),
            "parts": [part.state_dict() for part in parts],
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(self._path.name + ".partial")
        torch.save(state, beside)
        os.replace(beside, self._path)
        self._kept = time.monotonic()

    def clear(self) -> None:
        """What was trained is where it belongs."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

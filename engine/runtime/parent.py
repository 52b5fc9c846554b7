"""An actor and its raylet. Ray leaves an actor alive whose raylet has died: it would hold its GPU,
and write where another actor writes by then."""

from __future__ import annotations

import os
import threading
import time

LOOK_S = 1.0

_parent_pid: int | None = None


def remember_parent() -> None:
    """Called by an actor as it starts. The serial executor never calls it: a driver whose shell
    has gone (nohup) is to go on."""
    global _parent_pid
    _parent_pid = os.getppid()


def parent_alive() -> bool:
    """False in an actor whose raylet has died: it has been replaced, or soon will be, and must
    write nothing more. (A frozen raylet is not noticed.) True in any other process."""
    return _parent_pid is None or os.getppid() == _parent_pid


def end_with_parent() -> None:
    """From now on this process ends when its parent has, whatever it is at. (The kernel's own
    signal for it, PDEATHSIG, is of the parent's *thread*, and raylets start actors from many.)"""
    remember_parent()
    threading.Thread(target=_watch, daemon=True, name="watchdog").start()


def _watch() -> None:
    while parent_alive():
        time.sleep(LOOK_S)
    os._exit(1)

"""Starting Ray, or joining a cluster, quietly and with its security set outright.

Left alone, Ray's token authentication depends on what ran before on the machine, so it is settled
here: an embedded Ray listens on the network, hence it gets a random token that is never written to
disk; a cluster is joined with the user's RAY_AUTH_MODE, or else with a token if there is one.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgesweep.engine.runtime.address import find_address
from edgesweep.engine.runtime.grants import Grants
from edgesweep.engine.runtime.work import ExecutorError, PoolOptions, error_line

OBJECT_STORE_BYTES = 100 * 1024 * 1024  # receipts only; scores never travel through Ray


def open_session(options: PoolOptions) -> bool:
    """Makes Ray ready in this process. Returns True when this call started or joined it, so that
    the caller is the one to close it. Raises ExecutorError if it cannot."""
    set_environment(options.address)
    import ray

    if ray.is_initialized():
        return False
    address = find_address(options.address)
    try:
        with _signals_kept():
            ray.init(**_init_arguments(options, address))
    except Exception as error:
        where = options.address or "an embedded cluster"
        raise ExecutorError(f"Ray did not start ({where}): {error_line(error)}") from error
    return True


@contextmanager
def _signals_kept() -> Iterator[None]:
    """While Ray starts. It would put a handler that exits in the place of a driver's own for
    SIGTERM; and a signal to a whole group or job would end Ray's processes before the works in them
    are drained, so those that Ray starts are not to hear it (Ray itself spares them SIGINT)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    set_handler, ours = signal.signal, signal.getsignal(signal.SIGTERM)
    has_own = ours not in (signal.SIG_DFL, None)

    def set_others(number: Any, handler: Any) -> Any:
        kept = has_own and number == signal.SIGTERM
        return ours if kept else set_handler(number, handler)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    signal.signal = set_others  # type: ignore[assignment]  # as Ray does for SIGINT
    try:
        yield
    finally:
        signal.signal = set_handler
        if has_own:  # its C++ half has put a handler beneath Python's that prints stacks
            set_handler(signal.SIGTERM, ours)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def set_environment(address: str | None) -> None:
    """To be called before ray is first imported, as it reads some of these only then. (For an
    embedded Ray the order does not matter: given a token, `ray.init` sets the mode itself.)"""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if "RAY_AUTH_MODE" in os.environ:
        return
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    else:
        os.environ["RAY_AUTH_MODE"] = "token" if _user_has_token() else "disabled"


def _user_has_token() -> bool:
    path = os.environ.get("RAY_AUTH_TOKEN_PATH", os.path.expanduser("~/.ray/auth_token"))
    return "RAY_AUTH_TOKEN" in os.environ or os.path.exists(path)


def _init_arguments(options: PoolOptions, address: str | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": options.log_to_driver,
        "logging_level": logging.ERROR,
    }
    if options.address is None:
        arguments |= {
            "include_dashboard": False,
            "num_cpus": options.actors * options.threads,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    return arguments


def close_session() -> None:
    """Leaves the cluster; an embedded one ends."""
    import ray

    if ray.is_initialized():
        ray.shutdown()


def start_grants() -> Any:
    """The actor that is asked before a write, on the driver's own node: it lives as long."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Grants).options(num_cpus=0, scheduling_strategy=here).remote()

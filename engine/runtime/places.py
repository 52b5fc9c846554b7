"""Whether an actor has a place anywhere. Ray itself would wait for one for ever."""

from __future__ import annotations

from edgesweep.engine.runtime.work import PoolOptions

UNITS = {"CPU": 1.0, "GPU": 1.0, "memory": 1e9}


def no_place(options: PoolOptions) -> str:
    """What each actor asks for, if no node of the running Ray has all of it; otherwise ""."""
    import ray

    wanted = {
        "CPU": float(options.threads),
        "GPU": options.num_gpus,
        "memory": float(options.memory_bytes or 0),
    }
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(k, 0) >= n for k, n in wanted.items()) for node in nodes):
        return ""
    most = {k: max((node.get(k, 0) for node in nodes), default=0) for k in wanted}
    asked = {k: n for k, n in wanted.items() if n or k == "GPU"}
    return (
        f"each actor asks for {_said(asked)}, and the largest of {len(nodes)} nodes has "
        f"{_said({k: most[k] for k in asked})}"
    )


def _said(amounts: dict[str, float]) -> str:
    names = {"memory": "GB of memory"}
    return ", ".join(f"{n / UNITS[k]:.4g} {names.get(k, k)}" for k, n in amounts.items())

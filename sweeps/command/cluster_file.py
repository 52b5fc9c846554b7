"""What `edgesweep cluster-file` prints: a file that starts a cluster of the size a config asks for.

The templates are in `sweeps/clusters`; `@name@` in them is filled in here. What only the user knows
(addresses, disks, images) stands there in CAPITALS. All of them switch Ray's tokens on and open
nothing beyond what the cluster's own network sees; tests/sweeps/test_clusters.py holds them to it.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import find_config, load_config

if TYPE_CHECKING:
    from edgesweep.sweeps.config.load import Config

TEMPLATES = Path(__file__).parents[1] / "clusters"
#: what machines for many actors are taken to be: of 8 GPUs, or with 8 actors each
ACTORS_A_NODE = GPUS_A_NODE = 8
#: what a machine has besides its actors' memory, in GB: the system, Ray, the page cache
SPARE_GB = 4
#: characters that Kubernetes leaves for a name of ours
KUBE_NAME = 30


def cluster_file(kind: str, given: str, overrides: Sequence[str] = ()) -> str:
    """The file of a kind, filled in for a config.

    Args:
        kind: a file name in `sweeps/clusters`, without what follows the dot.
        given: a config file or preset.
        overrides: as `--set`; the file's own command has them too.

    Raises:
        ConfigError: the config is wrong, or a model that it names is not there.
    """
    template = next(TEMPLATES.glob(f"{kind}.*")).read_text(encoding="utf-8")
    config = load_config(given, overrides)
    values = {
        **_sizes(config),
        "config": shlex.quote(given),
        "name": config.name,
        "kube_name": config.name.replace("_", "-")[:KUBE_NAME].rstrip("-."),
        "config_text": _indented(find_config(given)[0].read_text(encoding="utf-8"), 4),
        "sets": "".join(f" --set {shlex.quote(override)}" for override in overrides),
        "ray_version": version("ray"),
    }
    return re.sub("@([a-z_]+)@", lambda found: str(values[found[1]]), template)


def _sizes(config: Config) -> dict[str, object]:
    """Of an actor, of a node with as many as it holds, and of a pod with as few as can be."""
    execution = config.execution
    gpus, memory_gb = execution.gpus, _memory_gb(config)
    a_node = min(execution.actors, _actors_on(GPUS_A_NODE, gpus) if gpus else ACTORS_A_NODE)
    a_pod = _actors_on(math.ceil(gpus), gpus) if gpus else 1
    node_gpus, pod_gpus = math.ceil(a_node * gpus), math.ceil(a_pod * gpus)
    sold_gpus = 1 << max(0, node_gpus - 1).bit_length()  # clouds have machines of 1, 2, 4 and 8
    return {
        "actors": execution.actors,
        "cpus": execution.threads,
        "gpus": f"{gpus:g}",
        "memory_gb": memory_gb,
        "nodes": math.ceil(execution.actors / a_node),
        "node_cpus": a_node * execution.threads + 2,
        "node_memory": a_node * memory_gb + SPARE_GB,
        "node_gpus": f"#SBATCH --gpus-per-node={node_gpus}\n" if gpus else "",
        "accelerators": f"  accelerators: GPU_TYPE:{sold_gpus}\n" if gpus else "",
        "pods": math.ceil(execution.actors / a_pod),
        "pod_cpus": a_pod * execution.threads,
        "pod_memory": a_pod * memory_gb + SPARE_GB,
        "pod_gpus": f', nvidia.com/gpu: "{pod_gpus}"' if gpus else "",
    }


def _actors_on(n_gpus: int, share: float) -> int:
    """How many actors find their share of that many GPUs."""
    return max(1, int(n_gpus / share))


def _memory_gb(config: Config) -> int:
    """What the config gives an actor, else what `--dry-run` says it needs at its peak."""
    if config.execution.memory_gb is not None:
        return math.ceil(config.execution.memory_gb)
    from edgesweep.sweeps.plan.estimates import actor_bytes
    from edgesweep.sweeps.plan.resolve import resolve
    from edgesweep.sweeps.planning import make_plan

    try:
        return math.ceil(actor_bytes(make_plan(resolve(config))) / 1e9)
    except ConfigError as error:
        raise ConfigError(
            f"{error} (to size a cluster without its models here: --set execution.memory_gb=GB)"
        ) from None


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line if line else "" for line in text.rstrip().splitlines())

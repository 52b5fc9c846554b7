"""Files that start clusters: they parse, hold what a config asks for, and open nothing."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from edgesweep.sweeps.command.cluster_file import TEMPLATES, cluster_file
from edgesweep.sweeps.config.fields import ConfigError
from tests.sweeps.test_cli import command

KINDS = sorted(path.stem for path in TEMPLATES.iterdir())
#: KubeRay 1.7's CRD of RayJob, pods' own fields left out
CRD = Path(__file__).with_name("rayjob_crd.json")
HALF_GPUS = ("execution.actors=9", "execution.num_gpus=0.5", "execution.memory_gb=5")


def filled_in(kind: str, *overrides: str) -> str:
    return cluster_file(kind, "smoke", overrides or ("execution.memory_gb=3",))


def documents(kind: str, *overrides: str) -> list[Any]:
    return list(yaml.safe_load_all(filled_in(kind, *overrides)))


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_on_and_nothing_is_open(kind: str) -> None:
    text = filled_in(kind)
    assert re.search(r"RAY_AUTH_MODE=token|authOptions:\s+mode: token", text)
    for open_to_all in (r"0\.0\.0\.0", r"::/?0?\b", "LoadBalancer", "NodePort", "^ *ports:"):
        assert not re.search(open_to_all, text, re.MULTILINE), open_to_all
    assert not re.search("@[a-z_]+@", text)  # all is filled in


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_carries_the_overrides(kind: str) -> None:
    text = filled_in(kind, "execution.memory_gb=3", "sweep.task=a b")
    assert "--set execution.memory_gb=3 --set 'sweep.task=a b'" in text


def test_an_actors_memory_is_what_a_dry_run_says() -> None:
    """Some 0.6 GB for the tiny model: torch, Ray and little else."""
    text = cluster_file("sky", "smoke", ["execution.actors=3"])
    assert yaml.safe_load(text)["resources"]["memory"] == f"{3 * 1 + 4}+"


def test_ray_up_reads_the_file_of_machines() -> None:
    (cluster,) = documents("ray")
    schema = Path(ray.__file__).parent / "autoscaler/ray-schema.json"
    jsonschema.validate(cluster, json.loads(schema.read_text()))
    assert all("--dashboard-host=127.0.0.1" in c for c in cluster["head_start_ray_commands"][1:])


def test_a_rayjob_is_what_kuberay_takes() -> None:
    config, policy, job = documents("kuberay", *HALF_GPUS)
    jsonschema.validate(job, json.loads(CRD.read_text()))
    assert yaml.safe_load(config["data"]["config.yaml"])["name"] == "smoke"
    assert job["spec"]["backoffLimit"] > 0
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert workers["replicas"] == 5  # of two actors each, that share a GPU
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "2", "memory": "14Gi", "nvidia.com/gpu": "1"}
    ours = policy["spec"]["podSelector"]["matchLabels"]
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert ours == head["metadata"]["labels"] == workers["template"]["metadata"]["labels"]


def test_a_rayjob_of_a_name_that_kubernetes_has_not(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"name: {'long_name.' * 6}\nexecution: {{memory_gb: 1}}\n")
    *_, job = yaml.safe_load_all(cluster_file("kuberay", str(file)))
    assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,45}[a-z0-9])", job["metadata"]["name"])


def test_a_slurm_job_is_a_script_that_is_told_before_its_end(tmp_path: Path) -> None:
    text = filled_in("slurm", *HALF_GPUS)
    (tmp_path / "job.sh").write_text(text)
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)
    options = re.findall("^#SBATCH (.*)", text, re.MULTILINE)
    assert {"--exclusive", "--requeue", "--signal=B:TERM@120", "--nodes=1"} <= {*options}
    assert "--gpus-per-node=5" in options
    assert "Exclusive nodes only" in text
    assert not any("gpus" in line for line in filled_in("slurm").splitlines() if "SBATCH" in line)


def test_a_sky_task_takes_spot_machines(tmp_path: Path) -> None:
    (task,) = documents("sky", *HALF_GPUS)
    assert task["resources"]["use_spot"] is True
    assert task["resources"]["accelerators"] == "GPU_TYPE:8"  # machines have 1, 2, 4 or 8
    assert task["secrets"] == {"RAY_AUTH_TOKEN": None}
    (tmp_path / "run.sh").write_text(task["run"])
    subprocess.run(["bash", "-n", tmp_path / "run.sh"], check=True)
    assert "accelerators" not in filled_in("sky")


def test_a_model_that_is_not_here_needs_a_size() -> None:
    with pytest.raises(ConfigError, match=r"--set execution\.memory_gb=GB\)$"):
        cluster_file("sky", "smoke", ["sweep.model=./nowhere"])
    text = cluster_file("sky", "smoke", ["sweep.model=./nowhere", "execution.memory_gb=9"])
    assert "9 GB" in text


def test_the_command(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    arguments = ["cluster-file", "slurm", "--set", "execution.memory_gb=3"]
    code, printed, _ = command(monkeypatch, capsys, *arguments)
    assert (code, printed) == (0, filled_in("slurm"))
    code, _, _ = command(monkeypatch, capsys, *arguments, "--out", str(tmp_path / "job.sh"))
    assert (code, (tmp_path / "job.sh").read_text()) == (0, printed)
    code, _, error = command(monkeypatch, capsys, *arguments, "--out", str(tmp_path / "no/job.sh"))
    assert (code, "--out: " in error) == (2, True)
    code, _, error = command(monkeypatch, capsys, "cluster-file", "docker")
    assert (code, "'ray', 'kuberay', 'slurm', 'sky'" in error) == (2, True)

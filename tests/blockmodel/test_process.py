"""Finding an interpreter, and everything that can go wrong in one."""

import ast
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgesweep.engine import blockmodel_process
from edgesweep.engine.blockmodel import (
    BlockModelError,
    BlockOptions,
    Interpreter,
    best,
    chain_seeds,
    find_interpreter,
    fit,
    fit_chain,
)

ROOT = Path(__file__).parents[2]
WORKER = blockmodel_process.WORKER.resolve()
EDGES = np.array([[0, 1], [1, 2]])
GOOD = {
    "levels": [[5, 5, 2]],
    "description_length": 1.5,
    "description_length_null": 2.5,
    "versions": {"graph_tool": "9.9"},
}
PROBED = """echo '{"graph_tool": "%s"}'"""


def chain_of(interpreter, seed=1, **options):
    return fit_chain(EDGES, 3, BlockOptions(), seed, interpreter, **options)


def writes(text):
    return f"printf '%s' '{text}' > \"$4\""


# ------------------------------------------------------------------ what can go wrong


def test_a_crash_carries_the_status_and_the_last_line(fake):
    with pytest.raises(BlockModelError) as caught:
        chain_of(fake("echo Traceback >&2; echo 'ValueError: boom' >&2; echo >&2; exit 1"))
    assert str(caught.value) == (
        "the block model's process ended with exit status 1: ValueError: boom"
    )


def test_a_kill_names_the_signal(fake):
    with pytest.raises(BlockModelError, match=r"killed by SIGKILL \(out of memory\?\): allocating"):
        chain_of(fake("echo allocating >&2; kill -9 $$"))
    with pytest.raises(BlockModelError, match=r"was killed by SIGSEGV$"):
        chain_of(fake("kill -SEGV $$", "segfault"))


def test_a_timeout_ends_the_process_and_what_it_started(fake, tmp_path):
    began = time.monotonic()
    with pytest.raises(BlockModelError, match=r"killed after 0\.5 s, its time limit: waiting"):
        chain_of(
            fake(f"echo $$ > {tmp_path}/pid; echo waiting >&2; sleep 60; echo over"), timeout_s=0.5
        )
    assert time.monotonic() - began < 50  # and not the minute of its sleep
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_stop_ends_the_process(fake):
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(BlockModelError, match="was stopped"):
        chain_of(fake("sleep 60"), stop=stop)


def test_an_interpreter_that_cannot_be_started():
    with pytest.raises(BlockModelError, match="cannot be started: No such file"):
        chain_of(Interpreter("/nowhere/python", "0"))


def test_no_result(fake):
    with pytest.raises(BlockModelError, match="ended well but left no result"):
        chain_of(fake("exit 0"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        json.dumps([GOOD | {"levels": []}]),
        json.dumps([GOOD | {"levels": [[0, 0]]}]),
        json.dumps([GOOD | {"levels": [[0, 0, 0.5]]}]),
        json.dumps([GOOD | {"levels": 3}]),
        json.dumps([GOOD | {"description_length": None}]),
        json.dumps([GOOD | {"description_length": float("nan")}]),
        json.dumps([GOOD | {"description_length_null": "long"}]),
        json.dumps([{key: GOOD[key] for key in GOOD if key != "versions"}]),
        json.dumps([GOOD, GOOD]),
    ],
)
def test_a_malformed_result(fake, text):
    with pytest.raises(BlockModelError, match="result is malformed"):
        chain_of(fake(writes(text)))


def test_a_result_that_is_not_text(fake):
    with pytest.raises(BlockModelError, match="result is malformed"):
        chain_of(fake("printf '\\377\\376' > \"$4\""))


def test_a_good_result_is_read_and_renumbered(fake):
    chain = chain_of(fake(writes(json.dumps([GOOD]))), seed=7)
    assert chain.levels == ((0, 0, 1),)
    assert (chain.description_length, chain.description_length_null) == (1.5, 2.5)
    assert (chain.seed, chain.engine) == (7, "graph-tool 9.9")


def test_nothing_of_this_python_reaches_the_child(fake, tmp_path, monkeypatch):
    for key in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(key, "/ours")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    chain_of(fake(f"env > {tmp_path}/env; {writes(json.dumps([GOOD]))}"))
    environment = (tmp_path / "env").read_text().splitlines()
    assert "OMP_NUM_THREADS=1" in environment
    assert not [line for line in environment if line.endswith("=/ours")]


@pytest.mark.parametrize(("failing", "max_workers"), [(0, 1), (0, 2), (1, 2)])
def test_the_first_chain_that_fails_ends_the_others(fake, failing, max_workers):
    # All but one would sleep for a minute; which one fails first must not matter.
    seed = chain_seeds(0, 3)[failing]
    looks = (
        "import json, sys, numpy; "
        'options = json.loads(str(numpy.load(sys.argv[1])["options"])); '
        f'sys.exit(4 if options["seed"] == {seed} else 0)'
    )
    body = f"{sys.executable} -c '{looks}' \"$3\" && exec sleep 60; echo not me >&2; exit 4"
    interpreter, options = fake(body), BlockOptions()
    began = time.monotonic()
    with pytest.raises(BlockModelError, match="exit status 4: not me"):
        fit(EDGES, tuple("abc"), options, 0, interpreter, chains=3, max_workers=max_workers)
    assert time.monotonic() - began < 50  # and not the minute of its sleep


def cpu_seconds(pid: int) -> float | None:
    """Processor time of a live process; None once it is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX":
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(condition, limit_s=60.0):
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's part is Linux's")
def test_a_killed_driver_takes_its_chain_along(graph_tool, tmp_path):
    script = (
        "import numpy as np\n"
        "from edgesweep.engine.blockmodel import BlockOptions, fit_chain, Interpreter\n"
        "edges = np.argwhere(np.random.default_rng(0).random((60, 60)) < 0.2)\n"
        "edges = edges[edges[:, 0] != edges[:, 1]]\n"
        "forever = BlockOptions(patience=10**9, max_rounds=10**9)\n"
        f"fit_chain(edges, 60, forever, 0, Interpreter({graph_tool.path!r}, ''))\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    driver = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment)
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children")
    child = None
    try:
        child = int(wait_until(children.read_text).split()[0])
        # Past its imports, so that it has asked to die with its parent.
        wait_until(lambda: (cpu_seconds(child) or 0) > 2.0)
        driver.kill()
        driver.wait()
        wait_until(lambda: cpu_seconds(child) is None)
    finally:
        driver.kill()
        driver.wait()
        if child is not None and cpu_seconds(child) is not None:
            os.kill(child, signal.SIGKILL)


# ------------------------------------------------------------------ which interpreter


@pytest.fixture
def nothing_found(monkeypatch):
    """No variable set, and no candidate that works."""
    monkeypatch.delenv("EDGESWEEP_GRAPH_TOOL", raising=False)
    monkeypatch.setattr(blockmodel_process, "_candidates", lambda: iter(["/nowhere/python"]))


def test_none_when_there_is_none(nothing_found):
    assert find_interpreter() is None
    assert find_interpreter("") is None


def test_the_setting_comes_before_the_variable(fake, monkeypatch, nothing_found):
    setting, variable = fake(PROBED % "1.0", "setting"), fake(PROBED % "2.0", "variable")
    monkeypatch.setenv("EDGESWEEP_GRAPH_TOOL", variable.path)
    assert find_interpreter(setting.path) == Interpreter(setting.path, "1.0")
    assert find_interpreter() == Interpreter(variable.path, "2.0")


def test_then_the_running_one_the_systems_and_condas(fake, monkeypatch, tmp_path):
    monkeypatch.delenv("EDGESWEEP_GRAPH_TOOL", raising=False)
    monkeypatch.setattr(sys, "executable", fake(PROBED % "3.0", "running").path)
    monkeypatch.setattr(blockmodel_process, "find_spec", lambda name: name == "graph_tool")
    monkeypatch.setenv("CONDA_PREFIX", "/conda")
    order = [str(tmp_path / "running"), "/usr/bin/python3", "/conda/bin/python"]
    assert list(blockmodel_process._candidates()) == order
    assert find_interpreter() == Interpreter(order[0], "3.0")
    monkeypatch.delenv("CONDA_PREFIX")
    assert list(blockmodel_process._candidates()) == order[:2]
    monkeypatch.setattr(blockmodel_process, "find_spec", lambda name: None)
    assert list(blockmodel_process._candidates()) == order[1:2]


def test_a_candidate_that_does_not_work_is_passed_over(fake, monkeypatch, nothing_found):
    bad, good = fake("exit 1", "bad").path, fake(PROBED % "4.0", "good").path
    monkeypatch.setattr(blockmodel_process, "_candidates", lambda: iter([bad, good]))
    assert find_interpreter() == Interpreter(good, "4.0")


def test_a_probe_that_worked_is_not_repeated(fake, tmp_path, nothing_found):
    setting = fake(f"echo x >> {tmp_path}/calls; {PROBED % '5.0'}")
    assert find_interpreter(setting.path) == find_interpreter(setting.path)
    assert (tmp_path / "calls").read_text() == "x\n"


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (
            "echo \"ModuleNotFoundError: No module named 'graph_tool'\" >&2; exit 1",
            "ended with exit status 1: ModuleNotFoundError: No module named 'graph_tool'",
        ),
        ("echo hello", r"answered 'hello\n', not its versions"),
        ("kill -SEGV $$", "was killed by SIGSEGV"),
        ("sleep 60", "no answer within 0.3 s"),
    ],
)
def test_a_setting_that_does_not_work_is_one_clear_line(
    fake, monkeypatch, nothing_found, body, cause
):
    if body.startswith("sleep"):
        monkeypatch.setattr(blockmodel_process, "PROBE_TIMEOUT_S", 0.3)
        body = f"exec {body}"
    path = fake(body).path
    with pytest.raises(BlockModelError) as caught:
        find_interpreter(path)
    assert str(caught.value).splitlines() == [f"graph-tool interpreter '{path}' (setting): {cause}"]


def test_a_setting_that_is_no_executable(monkeypatch, nothing_found):
    with pytest.raises(BlockModelError, match=r"'/nowhere' \(setting\): no such executable"):
        find_interpreter("/nowhere")
    monkeypatch.setenv("EDGESWEEP_GRAPH_TOOL", "/nowhere")
    with pytest.raises(BlockModelError, match=r"\(EDGESWEEP_GRAPH_TOOL\): no such executable"):
        find_interpreter()


def test_the_real_one_tells_its_version(graph_tool):
    assert graph_tool.version[0].isdigit()


# ------------------------------------------------------------------ the walls


def imported(path: Path) -> set[str]:
    names = set()
    for statement in ast.walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            names |= {alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            names.add((statement.module or ".").split(".")[0] if not statement.level else ".")
    return names


def test_the_worker_imports_the_standard_library_numpy_and_graph_tool():
    assert imported(WORKER) - sys.stdlib_module_names == {"numpy", "graph_tool"}


def test_nothing_else_imports_graph_tool():
    packages = ("engine", "tasks", "storage", "sweeps", "dashboards")
    files = {file for package in packages for file in (ROOT / package).rglob("*.py")}
    assert {file for file in files if "graph_tool" in imported(file)} == {WORKER}


def test_no_chain_no_best():
    with pytest.raises(BlockModelError, match="no chain"):
        best([])

"""The damage table: every kind of file of a finished run, hurt in every way. It is told or healed,
never a traceback, never silent, and after `resume` the bytes are those of before.

Kinds are read off the directories of two runs, over heads and over features, so that a new one is
covered without a change here. What a command does not look at is written down in UNSEEN; of that
it must come to what it comes to without damage. `-s` prints the table.
"""

import copy
import dataclasses
import pickle
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from edgesweep.dashboards import report as page
from edgesweep.dashboards.data import RunData
from edgesweep.dashboards.report import write_report
from edgesweep.engine.blockmodel import find_interpreter
from edgesweep.storage import StorageError
from edgesweep.sweeps.command import cli
from edgesweep.sweeps.config.load import parse_config
from edgesweep.sweeps.launch import start
from tests.sweeps.helpers import BLOCKS, contents, tiny

HURTS: dict[str, Callable[[bytes], bytes | None]] = {
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "deleted": lambda data: None,
    "flipped bit": lambda data: _flipped(data),
    "changed digit": lambda data: _other_digit(data),
}
HEADS = {
    "sweep": {
        "method": ["eap", "exact"],
        "task": "ioi",
        "candidates": {"top": 4, "random": 2},
    },
    "evaluate": {"eval_patch": "mean", "threshold": [40], "ablation": "edge", "metric": "kl"},
    "data": {"mean_positions": "pooled"},
    "measures": {"bootstrap": 5, "minimality": 5, "interpolate": 2, "fractions": 3},
    "execution": {"shard_inputs": 4},
    "blocks": {**BLOCKS, "chains": 1} if find_interpreter() is not None else {},
}
TRAINED = {"kind": "topk", "features": 32, "k": 4, "steps": 5, "prompts": 4}
FEATURES = {
    "sweep": {"method": "ig_activations", "task": "ioi", "nodes": "features", "steps": 2},
    "features": {
        "dictionaries": {"embed": "identity", "resid2": TRAINED},
        "keep": 50,
        "edges": 50,
    },
    **{section: HEADS[section] for section in ("evaluate", "data", "execution")},
}
#: what decides a run, and cannot be made again: every command says so in one line
LOST = "plan.json"
#: what tells of a run's work, and goes on growing; all else is its result
TELLS = re.compile(r"(log/.*|report\.html|manifest\.json|epochs/.*|commits/.*)")
#: what `resume` says of what it mends
TOLD = re.compile("(is|was) not |damaged")
#: `status` reads records and the files of the manifest; of who drove, only what is there
UNSEEN_BY_STATUS = r".*\.zarr/.*|(prompts|dictionaries|blocks)/.*|epochs/.* deleted"
#: the page shows, beside tables and records, graphs, the scores of one aggregation, and what lists
#: of edges leave out; each array is read by its own metadata, without that of its groups
UNSEEN_BY_REPORT = "|".join(
    (
        r"aggregates\.zarr/(CELL/(?!mean/).*|zarr\.json .*)",
        r"attributions\.zarr/CELL/(scores|per_input)/.*",
        r"attributions\.zarr/CELL/listed/(count|dropped|raw|source|target)/.*",
        r"attributions\.zarr/(CELL/((graph|listed)/)?|graphs/(.*/)?)?zarr\.json .*",
        r"evaluations\.zarr/(?!.*/distance/).*",
        r"means\.zarr/.*|(prompts|dictionaries|blocks|epochs)/.*|report\.html .*",
    )
)
#: of a file that a command does not read
UNSEEN = "not its"


def _flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def _other_digit(data: bytes) -> bytes:
    """One digit of a text; what is none stays."""
    found = list(re.finditer(rb"[0-9]", data)) if data.isascii() else []
    if not found:
        return data
    at = found[len(found) // 2].start()
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


#: copies of a run, each with so many-th of its files hurt
GROUPS = 6
ON_HEADS, ON_FEATURES = ("heads", "heads"), ("features", "features")


@dataclasses.dataclass
class Row:
    """A line of the table: what each command did."""

    kind: str
    hurt: str
    status: str
    report: str
    resume: str = ""

    def __str__(self) -> str:
        return f"{self.kind:<75}{self.hurt:<15}{self.status:<15}{self.report:<15}{self.resume}"


@pytest.fixture(scope="session")
def wholes(tmp_path_factory) -> dict[str, Path]:
    """Two finished runs, with all that tiny ones can have."""
    folder = tmp_path_factory.mktemp("wholes")
    for name, sections in (("heads", HEADS), ("features", FEATURES)):
        launch = start(parse_config(tiny(**copy.deepcopy(sections))), folder / name)
        assert cli.drive_and_tell(launch) == 0
    return {name: folder / name for name in ("heads", "features")}


class Bench:
    """Hurts copies of a finished run, and asks what commands do with them.

    Attributes:
        rows: the table so far.
    """

    def __init__(self, whole: Path, folder: Path, ask: Callable[..., tuple[int, str]]) -> None:
        self.rows: list[Row] = []
        self._whole, self._folder, self._ask = whole, folder, ask
        self._results, self._n = results_of(whole), 0
        self._looked_at, self._page = self._copy(), folder / "page.html"
        self._done = ask("status", str(self._looked_at))
        assert self._report()[0] == 0
        self._shown = self._page.read_bytes()

    def look(self, kind: str, name: Path, how: str) -> bool:
        """What `status` and `report`, which change nothing, do with one hurt file; whether there
        was anything to hurt in that way."""
        before = hurt(self._looked_at, name, how)
        if before is None:
            return False
        said, shown = self._status(kind, how), self._show(kind, how)
        (self._looked_at / name).write_bytes(before)
        self.rows.append(Row(kind, how, said, shown))
        return True

    def _status(self, kind: str, how: str) -> str:
        code, said = found = self._ask("status", str(self._looked_at))
        if code:
            return "told"
        if found != self._done:
            assert "damaged" in said or ": done" not in said, ("silent", kind, how, said)
            return "damaged" if "damaged" in said else said.split()[1]
        assert re.fullmatch(UNSEEN_BY_STATUS, f"{kind} {how}"), ("silent", kind, how)
        return UNSEEN

    def _show(self, kind: str, how: str) -> str:
        code, said = self._report()
        if code:
            assert "resume" in said or kind == LOST, ("no remedy", kind, how, said)
            return "told"
        shown = self._page.read_bytes()
        if b"</code>, done." not in shown:
            return "on the page"
        assert shown == self._shown, ("silent", kind, how)
        assert re.fullmatch(UNSEEN_BY_REPORT, f"{kind} {how}"), ("silent", kind, how)
        return UNSEEN

    def _report(self) -> tuple[int, str]:
        return self._ask("report", str(self._looked_at), "-o", str(self._page))

    def resume(self, hurts: dict[Path, str]) -> str:
        """What `resume` does with a copy of hurt files: it is what it was, or cannot be."""
        run = self._copy()
        for name, how in hurts.items():
            hurt(run, name, how)
        # of a run whose end nobody knows the driver lives: it is this process
        code, said = self._ask("resume", str(run), "--take-over")
        if Path(LOST) in hurts:
            assert code != 0, hurts
            assert LOST in said
            outcome = "told"
        else:
            assert code == 0, (hurts, said)
            assert results_of(run) == self._results, hurts
            assert self._ask("status", str(run))[1].splitlines()[0].endswith(": done"), hurts
            outcome = "healed, told" if TOLD.search(said) else "healed"
        shutil.rmtree(run)
        return outcome

    def _copy(self) -> Path:
        """In a folder of its own each time: what this process remembers of another is not its."""
        self._n += 1
        return Path(shutil.copytree(self._whole, self._folder / f"{self._n}" / "run"))


@pytest.fixture
def bench(wholes, request, tmp_path, monkeypatch, capsys) -> Iterator[Bench]:
    """Prints the table at its end."""
    drawn_once(monkeypatch)
    made = Bench(wholes[request.param], tmp_path, partial(command, monkeypatch, capsys))
    yield made
    counts = Counter((row.status, row.report, row.resume) for row in made.rows)
    with capsys.disabled():
        if request.config.getoption("capture") == "no":
            print("", *made.rows, *counts.items(), sep="\n")


def drawn_once(monkeypatch) -> None:
    """A page is drawn again only of other data than before: reading the data is what is tested."""
    render, drawn = page.render, {}

    def once(data: RunData) -> str:
        status = {**data.status, "path": ""}
        key = pickle.dumps(dataclasses.replace(data, path=Path(), log=(), status=status))
        if key not in drawn:
            drawn[key] = render(data)
        return drawn[key]

    monkeypatch.setattr(page, "render", once)


def results_of(run: Path) -> dict[str, str]:
    return {name: sha for name, sha in contents(run, ".").items() if not TELLS.fullmatch(name)}


def kinds(run: Path) -> dict[str, Path]:
    """One file of each kind: names without what tells cells, circuits, shards and chunks apart."""
    found: dict[str, Path] = {}
    for file in sorted(f for f in run.rglob("*") if f.is_file()):
        name = str(file.relative_to(run))
        kind = re.sub(r"[a-z_]+-[0-9a-f]{8,}(-[a-z_]+)*", "CELL", name)
        kind = re.sub(r"[0-9a-f]{8,}|\d+", "#", kind)
        found.setdefault(re.sub(r"(c/#)(/#)*$", "chunk", kind), Path(name))
    return found


def only_of(wholes: dict[str, Path], name: str) -> dict[str, Path]:
    """Kinds of a run; over features, those that one over heads has not."""
    mine = kinds(wholes[name])
    others = kinds(wholes["heads"]) if name == "features" else {}
    return {kind: file for kind, file in mine.items() if kind not in others}


def hurt(run: Path, name: Path, how: str) -> bytes | None:
    """What was there; None if there was nothing to hurt in that way."""
    before = (run / name).read_bytes()
    after = HURTS[how](before)
    if after == before:
        return None
    if after is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(after)
    return before


def command(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    """Exit code, and all that was said. A traceback is an exception here."""
    monkeypatch.setattr(sys, "argv", ["edgesweep", *arguments])
    capsys.readouterr()
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    printed = capsys.readouterr()
    assert len(printed.err.strip().splitlines()) <= 1, printed.err
    return code, printed.out + printed.err


def test_kinds_are_read_off_the_directory(wholes):
    found = [*kinds(wholes["heads"]), *only_of(wholes, "features")]
    assert len(found) == len(set(found))
    for kind in (LOST, "manifest.json", "results.parquet", "report.html"):
        assert kind in found
    for part in ("commits/", "log/", "epochs/", "prompts/", "dictionaries/", ".zarr/", "/chunk"):
        assert any(part in kind for kind in found)


@pytest.mark.parametrize(
    ("bench", "name"),
    [pytest.param(*ON_HEADS, marks=pytest.mark.proof), ON_FEATURES],
    indirect=["bench"],
)
@pytest.mark.timeout(900)
def test_every_kind(bench, wholes, name):
    """Each looked at in one way, and hurt together with some others in another."""
    found = only_of(wholes, name)
    for i, (kind, file) in enumerate(found.items()):
        bench.look(kind, file, list(HURTS)[i % len(HURTS)])
    files = [file for file in found.values() if file != Path(LOST)]
    for first in range(GROUPS):
        group = files[first::GROUPS]
        bench.resume({f: list(HURTS)[i % len(HURTS)] for i, f in enumerate(group, first)})


@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", HURTS)
@pytest.mark.parametrize(("bench", "name"), [ON_HEADS, ON_FEATURES], indirect=["bench"])
def test_every_kind_in_every_way(bench, wholes, name, how):
    for kind, file in only_of(wholes, name).items():
        if bench.look(kind, file, how):
            bench.rows[-1].resume = bench.resume({file: how})


def test_a_graph_that_is_gone_is_said(wholes, tmp_path):
    """The page once left out that cell's graph, without a word."""
    run = Path(shutil.copytree(wholes["heads"], tmp_path / "run"))
    next(run.glob("attributions.zarr/graphs/*/ends/zarr.json")).unlink()
    with pytest.raises(StorageError, match=r"graphs/\w+/ends: no such array; resume the run"):
        write_report(run)

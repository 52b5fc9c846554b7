"""The config: what a run is asked to do, validated before anything starts.

`load_config` reads a YAML file or a preset, applies `--set` overrides and returns a frozen
`Config`. Every fault is a `ConfigError` of one line: the dotted key, its value, what is allowed.
Which values change numbers (identity) and which do not (execution) is said in `plan.identity_of`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError, field_validator

from edgesweep.sweeps.config.blocks import Blocks
from edgesweep.sweeps.config.faults import describe, one_line, short
from edgesweep.sweeps.config.features import Features, sets_of_features
from edgesweep.sweeps.config.fields import INTERACTIONS, ConfigError, Name, Section, did_you_mean
from edgesweep.sweeps.config.interactions import BASES, Bases, EdgesNeeded, Interactions, Modules
from edgesweep.sweeps.config.paths import with_absolute_paths
from edgesweep.sweeps.config.plainyaml import MAX_CHARACTERS, MAX_DEPTH, PlainYamlError, read_plain
from edgesweep.sweeps.config.report import Report
from edgesweep.sweeps.config.rois import METHOD as ROI_METHOD
from edgesweep.sweeps.config.rois import ROIS, Rois
from edgesweep.sweeps.config.schema import (
    NODES,
    Data,
    Evaluate,
    Execution,
    Measures,
    Scores,
    Seed,
    Sweep,
)

PRESETS = Path(__file__).with_name("presets")


class Config(Section):
    """A whole config, all defaults filled in. `versions` is what config.yaml of a run notes of the
    packages that made it; it is not read."""

    name: Name
    seed: Seed = 0
    sweep: Sweep = Sweep()
    features: Annotated[dict[Name, Features], BeforeValidator(sets_of_features)] = {}  # noqa: RUF012
    evaluate: Evaluate = Evaluate()
    data: Data = Data()
    bases: Bases = Bases()
    interactions: Interactions = Interactions()
    edges_needed: EdgesNeeded = EdgesNeeded()
    modules: Modules = Modules()
    rois: Rois = Rois()
    blocks: Blocks = Blocks()
    measures: Measures = Measures()
    report: Report = Report()
    scores: Scores = Scores()
    execution: Execution = Execution()
    versions: dict[str, str] | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """What the prompts of each model and task are drawn with, once each."""
        return self.sweep.seed or (self.seed,)

    @property
    def bases_of(self) -> tuple[str, ...]:
        """The bases of node layers among `sweep.nodes`; a set of dictionaries may have their
        name."""
        return tuple(n for n in self.sweep.nodes if n in BASES and n not in self.features)

    @property
    def has_rois(self) -> bool:
        """Whether regions of interest are among `sweep.nodes`; a set of dictionaries may have their
        name."""
        return ROIS in self.sweep.nodes and ROIS not in self.features

    @property
    def attributed(self) -> Config:
        """The same without what is no graph with edges that are attributed: bases with their
        interactions, and regions of interest."""
        beside = (*self.bases_of, *([ROIS] if self.has_rois else []))
        nodes = tuple(n for n in self.sweep.nodes if n not in beside)
        methods = tuple(m for m in self.sweep.method if nodes and m != INTERACTIONS)
        sweep = self.sweep.model_copy(update={"nodes": nodes, "method": methods})
        return self.model_copy(update={"sweep": sweep})

    @property
    def reference_metrics(self) -> tuple[str, ...]:
        """Those of the references: also what a run says of the model's own skill."""
        return tuple(dict.fromkeys((*self.evaluate.metric, "logit_diff", "accuracy")))

    @field_validator(
        *("sweep", "evaluate", "data", "bases", "interactions", "edges_needed", "modules", "rois"),
        *("blocks", "measures", "scores", "report", "execution"),
        mode="before",
    )
    @classmethod
    def _a_section_is_a_mapping(cls, value: Any) -> Any:
        return {} if value is None else value


# --- reading ----------------------------------------------------------------------------------


def preset_names() -> list[str]:
    """The presets that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_config(given: str | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, or a preset by its name, or plain values, and apply `key=value` overrides.

    Returns:
        The config; paths in it, relative to the file (to the working folder for a preset or plain
        values), are made absolute, and patterns of models the folders that match them.

    Raises:
        ConfigError: one line on the first thing that is wrong.
    """
    raw, base = _raw(given)
    for override in overrides:
        apply_override(raw, override)
    config = parse_config(raw)
    try:
        return with_absolute_paths(config, base)
    except ConfigError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # too long; ~nobody; a NUL
        raise ConfigError(f"a path in the config cannot be used: {one_line(error)[:300]}") from None


def _raw(given: str | Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """The values, and the folder that paths in them are relative to."""
    if isinstance(given, Mapping):
        return copy.deepcopy(dict(given)), Path.cwd()
    path, base = find_config(given)
    return _read_yaml(path), base


def parse_config(raw: Mapping[str, Any]) -> Config:
    """A config from plain values. Raises ConfigError."""
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError(describe(error, Config)) from None
    config = _with_known_nodes(config)
    if fault := config.report.fault(config.sweep, config.evaluate):
        raise ConfigError(fault)
    return config


def _with_known_nodes(config: Config) -> Config:
    """A config whose `sweep.nodes` and `features` agree. Raises ConfigError."""
    nodes, sets = config.sweep.nodes, dict(config.features)
    if "features" in nodes and not sets:  # told with what it lacks, once the model is known
        sets["features"] = Features()
    for name, given in config.features.items():
        if name in NODES:
            raise ConfigError(f"features: {name!r} names nodes that every model has; rename it")
        if name not in nodes and not given.dictionaries:
            del sets[name]
        elif name not in nodes:
            one = ("features.dictionaries: are", "them")
            told, them = one if name == "features" else (f"features.{name}: is", "it")
            raise ConfigError(
                f"{told} given and sweep.nodes has no {name!r}; add it, or leave {them} out"
            )
    for name in nodes:
        if name not in sets and name not in (*NODES, *BASES, ROIS):
            allowed = dict.fromkeys([*NODES, *(sets or ["features"]), *BASES, ROIS])
            raise ConfigError(
                f"sweep.nodes: {name!r} is not known; allowed: {', '.join(allowed)}"
                + did_you_mean(name, allowed)
            )
    found = config.model_copy(update={"features": sets})
    if bool(found.bases_of) != (INTERACTIONS in config.sweep.method):
        raise ConfigError(
            f"sweep.method: {INTERACTIONS!r} is for nodes {', '.join(BASES)}, and they take it "
            f"alone; sweep.nodes is {', '.join(nodes)}"
        )
    if fault := _roi_fault(found):
        raise ConfigError(fault)
    return found


def _roi_fault(config: Config) -> str:
    """What is wrong with regions of interest beside the other nodes and methods."""
    if not config.has_rois:
        return ""
    methods = config.sweep.method
    others = [m for m in methods if m not in (ROI_METHOD, INTERACTIONS)]
    if ROI_METHOD in methods and (config.attributed.sweep.nodes or not others):
        return ""
    wrong = (others or methods)[0]
    return f"sweep.method: {wrong!r} attributes no {ROIS!r}; allowed for them: {ROI_METHOD}"


def find_config(name: str) -> tuple[Path, Path]:
    """The file of a config or a preset, and the folder that paths in it are relative to. Raises
    ConfigError."""
    path = Path(name)
    try:
        if path.is_file():
            return path, path.resolve().parent
    except (OSError, ValueError) as error:  # too long; a NUL; a folder that is closed to us
        raise ConfigError(f"config {short(name)} cannot be read: {error}"[:400]) from None
    known = preset_names()
    if name in known:
        return PRESETS / f"{name}.yaml", Path.cwd()
    raise ConfigError(
        f"config {name!r} is no file and no preset; presets: {', '.join(known)}"
        + did_you_mean(name, known)
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            raw = read_plain(file.read(MAX_CHARACTERS + 1))
    except PlainYamlError as error:
        raise ConfigError(f"config {path} {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"config {path} holds {_kind(raw)}; a mapping of keys is wanted")
    return raw


def apply_override(raw: dict[str, Any], override: str) -> None:
    """`--set a.b=value`, the value read as YAML."""
    key, found, text = override.partition("=")
    parts = key.strip().split(".")
    if not found or not all(parts) or len(parts) > MAX_DEPTH:
        raise ConfigError(
            f"--set {short(override)} is not of the form key=value, as in sweep.steps=10"
        )
    try:
        value = read_plain(text)
    except PlainYamlError as error:
        raise ConfigError(f"--set {key}: {short(text)} {error}") from None
    section: Any = raw
    for part in parts[:-1]:
        if not isinstance(section.get(part), dict):
            section[part] = {}
        section = section[part]
    section[parts[-1]] = value


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"

"""What `edgesweep stage` does: a config's models, put where every node finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgesweep.engine.model import ModelError, resolve_model
from edgesweep.engine.model.nodecache import stage
from edgesweep.storage import Refused
from edgesweep.storage.stores import open_store
from edgesweep.sweeps.config.fields import ConfigError
from edgesweep.sweeps.config.load import load_config


def stage_models(given: str, to: str, overrides: Sequence[str]) -> Iterator[str]:
    """Stage every model of a config, and say so.

    Args:
        given: a config file or preset.
        to: a folder or address.
        overrides: as `--set`.

    Raises:
        ConfigError: the config is wrong, a model is not here, or `to` is no place.
        StorageError: it cannot be written.
    """
    config = load_config(given, overrides)
    where = to if "://" in to else str(Path(to).resolve())
    try:
        store = open_store(where)
        for name in config.sweep.model:
            source = resolve_model(name)
            is_new = stage(source, store)
            yield f"{name}: {source.digest} {'is' if is_new else 'was'} staged in {where}"
    except Refused as error:
        raise ConfigError(f"--to: {error}") from None
    except ModelError as error:
        raise ConfigError(f"sweep.model: {error}") from None
    yield f"runs take it with --set execution.models_url={where}"

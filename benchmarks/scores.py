"""What stored scores cost and lose by bits, share and codec, against all of them as they are.

    python -m benchmarks.scores [--prompts 48]

EAP's scores of SmolLM2-135M on prompts of the task ioi, in shards of 16, written and read as a run
does. A line each: `ratio` is bytes on disk over those of all scores without a codec, `goal` what
scale.md asks of it; errors are those of an entry, of the mean scores (over the largest), and how
many of the first k edges by |mean| are the same (Jaccard), all of someone who takes means of what
is stored: a run's own aggregates are of the scores before.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgesweep.engine.methods import METHODS, Settings
from edgesweep.engine.model import load_model, resolve_model
from edgesweep.engine.network import PromptBatch
from edgesweep.engine.patches import make_patch
from edgesweep.storage import RunDirectory, fold
from edgesweep.storage.arrays import create_arrays
from edgesweep.storage.packing.scores import planned_scores, write_scores
from edgesweep.storage.readers import Committed, stored_scores
from edgesweep.sweeps.config.schema import Scores
from edgesweep.tasks import build_task

ROWS = 16
#: what is compared, and of its bytes the most that it may take of all
HOWS: tuple[tuple[Scores, float | None], ...] = (
    (Scores(), None),
    (Scores(codec="lz4"), None),
    (Scores(codec="zstd"), None),
    (Scores(bits=10, codec="lz4"), None),
    (Scores(bits=7, codec="lz4"), 1 / 2.4),
    (Scores(bits=7, codec="zstd"), 1 / 2.4),
    (Scores(bits=4, codec="lz4"), None),
    (Scores(keep=0.1, bits=7, codec="lz4"), None),
    (Scores(keep=0.1, bits=7, codec="zstd"), 1 / 20),
    (Scores(keep=0.01, bits=7, codec="zstd"), None),
)


def real_scores(n: int) -> np.ndarray:
    """float32 `[n, edge]`."""
    source = resolve_model("smollm2-135m")
    model, prompts = load_model(source), build_task("ioi", source.tokenizer(), n, 2, 0).build
    found = []
    for start in range(0, n, ROWS):
        batch = PromptBatch.make(prompts[start : start + ROWS])
        patch, eap = make_patch("counterfactual"), METHODS["eap"]
        found.append(eap.attribute(model, batch, patch, "logit_diff", Settings()).scores)
    return torch.cat(found).float().numpy()


def written(scores: np.ndarray, how: Scores, folder: Path) -> dict[str, Any]:
    """What one way of storing them comes to, and what is read again under `values`."""
    config = {"name": "scores", "scores": how.model_dump()}
    run = RunDirectory.create(folder, config, {"run_id": "scores", "stages": {}})
    create_arrays(planned_scores(run, "c", scores.shape, ROWS, how))
    committed, began = Committed(run), time.perf_counter()
    for start in range(0, len(scores), ROWS):
        block = scores[start : start + ROWS]
        committed.add({"writes": write_scores(run, "c", start, block, how)})
    wrote = time.perf_counter()
    values = stored_scores(committed, "c", scores.shape[1])
    read = time.perf_counter()
    chunks = [f for f in folder.rglob("c/**/*") if f.is_file() and f.name != "zarr.json"]
    return {
        "bytes": sum(f.stat().st_size for f in chunks),
        "write_GB_s": round(scores.nbytes / 1e9 / (wrote - began), 3),
        "read_GB_s": round(scores.nbytes / 1e9 / (read - wrote), 3),
        "values": np.nan_to_num(values),
    }


def lost(scores: np.ndarray, stored: np.ndarray) -> dict[str, Any]:
    """Errors of entries that are stored, of means, and of rankings by |mean|."""
    there = (stored != 0) & (scores != 0)
    error = np.abs(stored[there] - scores[there]) / np.abs(scores[there])
    means = [np.abs(s.astype(np.float64).mean(0)) for s in (scores, stored)]
    off = np.abs(scores.astype(np.float64).mean(0) - stored.astype(np.float64).mean(0)).max()
    jaccard = {}
    for k in (100, 1000, 10_000):
        one, other = (set(np.argsort(-m, kind="stable")[:k].tolist()) for m in means)
        jaccard[str(k)] = round(len(one & other) / len(one | other), 4)
    return {
        "entry_median": float(f"{np.median(error):.2g}"),
        "entry_max": float(f"{error.max():.2g}"),
        "mean_of_max": float(f"{off / means[0].max():.2g}"),
        "kept_of_abs": round(float(np.abs(stored).sum() / np.abs(scores).sum()), 3),
        "jaccard": jaccard,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=48)
    scores = real_scores(parser.parse_args().prompts)
    sums = fold.partial(scores).nbytes
    print(json.dumps({"inputs": len(scores), "edges": scores.shape[1], "partial_bytes": sums}))
    whole = 0
    for i, (how, goal) in enumerate(HOWS):
        with tempfile.TemporaryDirectory() as folder:
            found = written(scores, how, Path(folder) / str(i))
        values, size = found.pop("values"), found.pop("bytes")
        whole = whole or size
        told = {"keep": how.keep, "bits": how.bits, "codec": how.codec}
        ratio = {"ratio": round(size / whole, 4), "smaller": round(whole / size, 2), "goal": goal}
        print(json.dumps({**told, **ratio, **found, **lost(scores, values)}), flush=True)


if __name__ == "__main__":
    main()

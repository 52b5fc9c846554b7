"""What a run stores of a circuit, read straight from Zarr."""

import numpy as np

from edgesweep.storage.arrays import open_array, read_static


def read_values(directory, row):
    """A circuit's values, the model's and the empty circuit's, `[input]`, straight from Zarr."""
    metrics = directory.config["evaluate"]["metric"]
    at = f"{row['cell']}/{row['ablation']}.{row['eval_patch']}"
    circuits = read_static(directory.evaluations, f"{at}/ran")[1]["circuits"]
    values = np.asarray(open_array(directory.evaluations, f"{at}/values")[...])
    dataset = next(c["dataset"] for c in directory.plan["cells"] if c["key"] == row["cell"])
    name = f"reference/{dataset}/{row['eval_patch']}/values"
    sides = np.asarray(open_array(directory.evaluations, name)[...])
    among = list(dict.fromkeys((*metrics, "logit_diff", "accuracy")))
    own = values[:, circuits.index(row["circuit"]), metrics.index(row["metric"])]
    return own, *(sides[:, side, among.index(row["metric"])] for side in (0, 1))

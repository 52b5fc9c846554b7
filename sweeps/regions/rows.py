"""Rows of the tables of regions of interest, from what is committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from edgesweep.engine.regions.ablation import DEAD
from edgesweep.engine.structure import agreement
from edgesweep.storage.tables import (
    REGION_ABLATION,
    REGION_AREAS,
    REGION_CLASSES,
    REGION_FITS,
    REGION_PICTURES,
    REGION_VIEWS,
    REGIONS,
    Table,
)
from edgesweep.sweeps.interactions import files
from edgesweep.sweeps.regions import shards
from edgesweep.sweeps.regions.measured import ablation_rows, area_rows
from edgesweep.sweeps.regions.reading import read_chain, read_regions
from edgesweep.sweeps.regions.told import of_partition, of_units
from edgesweep.sweeps.stages.base import Row

if TYPE_CHECKING:
    from edgesweep.sweeps.regions.shards import PartitionShard, ViewShard
    from edgesweep.sweeps.regions.sites import UnitsOf
    from edgesweep.sweeps.view import View

#: numbers of an input that are rows of a picture, at most
MOST_NUMBERS = 20_000


def roi_tables(view: View) -> Mapping[Table, pd.DataFrame]:
    """Every table of regions, if the run has any."""
    if not view.plan.rois:
        return {}
    rows = {
        REGIONS: _regions(view),
        REGION_CLASSES: _classes(view),
        REGION_ABLATION: ablation_rows(view),
        REGION_AREAS: area_rows(view),
        REGION_FITS: _fits(view),
        REGION_VIEWS: _views(view),
        REGION_PICTURES: _pictures(view),
    }
    with threadpool_limits(view.plan.config.execution.threads):
        return {table: pd.DataFrame(list(of)) for table, of in rows.items()}


def _partitions(view: View) -> Iterator[PartitionShard]:
    """Those that are committed, of random ones the first draw."""
    for shard in view.plan.stages[shards.PARTITIONS]:
        if shard.key in view.done[shards.PARTITIONS] and not shard.which.draw:
            yield shard


def _regions(view: View) -> Iterator[Row]:
    for shard in _partitions(view):
        regions, labels, _ = read_regions(view.run, view.log, shard.which)
        fixed = of_partition(shard.which, regions.n)
        of_unit = np.where(regions.of == DEAD, DEAD, labels[regions.of])
        for unit, (roi, label) in enumerate(zip(regions.of.tolist(), of_unit, strict=True)):
            yield {**fixed, "unit": unit, "roi": roi, "label": int(label), "dead": roi == DEAD}


def _classes(view: View) -> Iterator[Row]:
    for shard in _partitions(view):
        regions, labels, means = read_regions(view.run, view.log, shard.which)
        fixed, sizes = of_partition(shard.which, regions.n), regions.sizes
        for (number, roi), value in np.ndenumerate(means):
            about = {"roi": roi, "n_units": int(sizes[roi]), "label": int(labels[roi])}
            yield {**fixed, **about, "class": number, "attribution": float(value)}


def _fits(view: View) -> Iterator[Row]:
    for of in view.plan.rois:
        if of.key not in view.done[shards.TIES]:
            continue
        ties = view.log.record(shards.TIES, of.key)
        about = {name: ties[name] for name in ("n_live", "n_dead", "n_clipped")}
        fixed = {**of_units(of), "n_units": of.n_units, **about}
        yield from (fixed | row for row in _chains(view, of))


def _chains(view: View, of: UnitsOf) -> Iterator[Row]:
    done = view.done[shards.CHAINS]
    keys = [key for key in shards.chain_keys(view.plan, of) if key in done]
    chains = [read_chain(view.run, view.log, key) for key in keys]
    if not chains:
        return
    best = min(chains, key=lambda chain: chain.length)
    for number, chain in enumerate(chains):
        yield {
            "chain": number,
            "n_blocks": chain.n_blocks,
            "length": chain.length,
            "given": float("nan"),
            "agreement": agreement(best.blocks, chain.blocks),
            "engine": "edgesweep" if view.plan.config.rois.how.is_ours else "graph-tool",
        }
    if of.key in view.done[shards.JUDGE]:
        found = files.read_tensors(view.run, view.log, shards.JUDGE, of.key)
        blocks = found["blocks"].numpy()
        yield {
            "chain": -1,
            "n_blocks": len(np.unique(blocks)),
            "length": float(found["length"]),
            "given": float(found["given"]),
            "agreement": agreement(best.blocks, blocks),
            "engine": view.log.record(shards.JUDGE, of.key)["engine"],
        }


def _viewed(view: View) -> Iterator[tuple[ViewShard, files.Tensors, Row]]:
    for shard in view.plan.stages[shards.VIEWS]:
        if shard.key in view.done[shards.VIEWS]:
            found = files.read_tensors(view.run, view.log, shards.VIEWS, shard.key)
            yield shard, found, {**of_units(shard.of), "partition": shard.which.partition}


def _views(view: View) -> Iterator[Row]:
    for _, found, fixed in _viewed(view):
        pairs = zip(found["regions"].tolist(), found["labels"].tolist(), strict=True)
        for place, (roi, label) in enumerate(pairs):
            inputs, scores = (found[name][place].tolist() for name in ("strongest", "scores"))
            for rank, (number, score) in enumerate(zip(inputs, scores, strict=True)):
                about = {"roi": roi, "label": label, "rank": rank, "input": number}
                yield {**fixed, **about, "attribution": score}


def _pictures(view: View) -> Iterator[Row]:
    for _, found, fixed in _viewed(view):
        pairs = zip(found["regions"].tolist(), found["labels"].tolist(), strict=True)
        for place, (roi, label) in enumerate(pairs):
            picture = found["pictures"][place].numpy()
            if picture.size > MOST_NUMBERS:
                return
            whole = picture.reshape((1,) * (3 - picture.ndim) + picture.shape)
            for (channel, row, column), value in np.ndenumerate(whole):
                at = {"channel": channel, "row": row, "column": column}
                yield {**fixed, "roi": roi, "label": label, **at, "attribution": float(value)}

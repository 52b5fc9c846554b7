"""All stages, by name (`stages.base.Stage`)."""

from __future__ import annotations

from typing import Any

from edgesweep.sweeps.interactions.directions import Directions
from edgesweep.sweeps.interactions.edges import EdgeFold, EdgeSums
from edgesweep.sweeps.interactions.labels import Labels
from edgesweep.sweeps.interactions.moments import LayerMoments
from edgesweep.sweeps.interactions.needed import EdgesNeeded
from edgesweep.sweeps.interactions.rotations import Jacobians, Rotations
from edgesweep.sweeps.interactions.structure import FindModules, FitLayerBlocks
from edgesweep.sweeps.regions.ablated import RegionAblation
from edgesweep.sweeps.regions.moments import UnitMeans, UnitMoments, UnitTies
from edgesweep.sweeps.regions.parted.stages import FeatureMoments, FeaturePartitions
from edgesweep.sweeps.regions.partitions import Partitions, RegionChains, RegionJudge
from edgesweep.sweeps.regions.views import RegionViews
from edgesweep.sweeps.stages.attribute import Attribute, Refine
from edgesweep.sweeps.stages.base import Stage
from edgesweep.sweeps.stages.blockmodels.ablation import EvaluateBlocks
from edgesweep.sweeps.stages.blockmodels.blocks import Blocks
from edgesweep.sweeps.stages.blockmodels.nulls import Nulls
from edgesweep.sweeps.stages.bootstrap import Bootstrap
from edgesweep.sweeps.stages.dictionaries import Dictionaries
from edgesweep.sweeps.stages.drawn import RandomBlocks, Rewired
from edgesweep.sweeps.stages.evaluate import Evaluate
from edgesweep.sweeps.stages.means import Means
from edgesweep.sweeps.stages.networks import NetworkScores
from edgesweep.sweeps.stages.probes import Probes
from edgesweep.sweeps.stages.reach import Reach
from edgesweep.sweeps.stages.rebuild import EvaluateRebuilt, Rebuild
from edgesweep.sweeps.stages.reduce import Reduce, ReduceRefined, Subtrees
from edgesweep.sweeps.stages.references import References

#: by name, in the order in which a person hears of them
STAGES: dict[str, Stage[Any]] = {
    stage.name: stage
    for stage in (
        Dictionaries(),
        Means(),
        FeatureMoments(),
        FeaturePartitions(),
        References(),
        Attribute(),
        Subtrees(),
        Reduce(),
        Refine(),
        ReduceRefined(),
        Evaluate(),
        Reach(),
        Rebuild(),
        EvaluateRebuilt(),
        Probes(),
        Bootstrap(),
        Blocks(),
        EvaluateBlocks(),
        Nulls(),
        NetworkScores(),
        LayerMoments(),
        Jacobians(),
        Rotations(),
        EdgeSums(),
        EdgeFold(),
        EdgesNeeded(),
        Directions(),
        Labels(),
        FindModules(),
        FitLayerBlocks(),
        UnitMeans(),
        UnitMoments(),
        UnitTies(),
        RegionChains(),
        Partitions(),
        RegionAblation(),
        RegionViews(),
        RegionJudge(),
        RandomBlocks(),
        Rewired(),
    )
}

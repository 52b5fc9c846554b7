"""Regions of interest of one site of an image network: found, and run without. Read `study`."""

from edgesweep.sweeps.regions.study import RegionStudy, regions
from edgesweep.sweeps.regions.tables import RegionTables

__all__ = ["RegionStudy", "RegionTables", "regions"]

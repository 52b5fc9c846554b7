"""Regions of interest of one site of an image network: found, and run without. Read `study`."""

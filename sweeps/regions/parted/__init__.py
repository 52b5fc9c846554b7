"""Regions of features as nodes: the partition of each site's features, found before attribution."""

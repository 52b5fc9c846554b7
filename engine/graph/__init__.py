"""Nodes, edges, their one order, and circuits as masks over the edges."""

from engine.graph.circuits import (
    SELECTIONS,
    CircuitStats,
    circuit_stats,
    induced_edges,
    node_circuit,
    node_edges,
    only_nodes,
    prune,
    select,
    touched_nodes,
    without_nodes,
)
from engine.graph.edges import EdgeGraph, GraphSpec, PortBlock

__all__ = [
    "SELECTIONS",
    "CircuitStats",
    "EdgeGraph",
    "GraphSpec",
    "PortBlock",
    "circuit_stats",
    "induced_edges",
    "node_circuit",
    "node_edges",
    "only_nodes",
    "prune",
    "select",
    "touched_nodes",
    "without_nodes",
]

"""Nodes, edges, their one order, and circuits as masks over the edges."""

from edgesweep.engine.graph.base import Block, Ends, Graph, NodeTable
from edgesweep.engine.graph.circuit import Circuit
from edgesweep.engine.graph.circuit_files import load_circuit
from edgesweep.engine.graph.circuits import (
    BY_MAGNITUDE,
    BY_SIZE,
    OF_EDGES,
    SELECTIONS,
    CircuitStats,
    circuit_stats,
    edge_ends,
    induced_edges,
    node_circuit,
    node_edges,
    prune,
    select,
    selections,
    touched_nodes,
)
from edgesweep.engine.graph.edge_names import CircuitError
from edgesweep.engine.graph.edges import EdgeGraph, GraphSpec, PortBlock
from edgesweep.engine.graph.features import ERROR, FeatureGraph, SiteBlock
from edgesweep.engine.graph.numbers import NodeNumbers
from edgesweep.engine.graph.rewiring import (
    STEPS_AN_EDGE,
    Allowed,
    Rewired,
    allowed_edges,
    allowed_pairs,
    edges_of,
    hub,
    rewire,
)

__all__ = [
    "BY_MAGNITUDE",
    "BY_SIZE",
    "ERROR",
    "OF_EDGES",
    "SELECTIONS",
    "STEPS_AN_EDGE",
    "Allowed",
    "Block",
    "Circuit",
    "CircuitError",
    "CircuitStats",
    "EdgeGraph",
    "Ends",
    "FeatureGraph",
    "Graph",
    "GraphSpec",
    "NodeNumbers",
    "NodeTable",
    "PortBlock",
    "Rewired",
    "SiteBlock",
    "allowed_edges",
    "allowed_pairs",
    "circuit_stats",
    "edge_ends",
    "edges_of",
    "hub",
    "induced_edges",
    "load_circuit",
    "node_circuit",
    "node_edges",
    "prune",
    "rewire",
    "select",
    "selections",
    "touched_nodes",
]

"""Interaction graphs in a sweep: bases of node layers, what acts on what, how much of it is needed.

    graphs       which there are: values that name the work
    moments      means and second moments of layers, by blocks of inputs
    rotations    second moments of Jacobians where they are sampled, and the bases
    edges        interactions of each section
    needed       networks with edges left out (`ablated`), `directions` likewise
    structure    modules and block models of what is needed
    tables, cost rows; bytes and passes

A basis of one layer needs that of the next: shards wait for each other backwards over the layers.
Every shard writes one safetensors file, which folds with its like in a fixed tree.
"""

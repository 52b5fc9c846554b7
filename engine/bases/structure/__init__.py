"""What interaction graphs are made of: modules (`modularity`), blocks of layers (`layerblocks`)."""

"""Running circuits of features: edges dropped, or nodes; what came out, metric by metric."""

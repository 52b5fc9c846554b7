"""Kinds of nodes: what a model is taken apart into, and all that hangs on it (`base`)."""

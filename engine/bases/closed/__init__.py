"""Closed forms of the pieces of networks: norms, modules, and MLPs under many masks."""

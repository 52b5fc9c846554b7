"""Rows of the tables of interaction graphs, from what is committed."""

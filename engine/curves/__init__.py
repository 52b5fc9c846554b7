"""Curves of faithfulness against size, from numbers alone: areas, and where a level is reached."""

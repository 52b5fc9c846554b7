"""Sections of what other prompts would have given."""

"""The sections of block models."""

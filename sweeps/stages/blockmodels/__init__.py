"""Stages of block models: fits, what they are held against, and ablation of blocks."""

"""Reads, checks and describes scenes: a hyperspectral cube with its labels and metadata."""

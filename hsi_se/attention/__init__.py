"""Attention blocks, one per file; each takes features (n, c, …) and returns the same shape."""

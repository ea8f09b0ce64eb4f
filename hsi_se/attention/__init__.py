"""Attention blocks, one a file; each takes features (n, c, …) and returns them in the same shape."""

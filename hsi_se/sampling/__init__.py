"""Sampling: which pixels train, the bands they keep, and the patch around each."""

"""Ablations: variants of a config by seeds, with paired statistics."""

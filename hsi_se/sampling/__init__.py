"""Sampling: splits of the labelled pixels, band reduction, and patches."""

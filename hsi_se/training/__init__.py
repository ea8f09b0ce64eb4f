"""Fits networks and classical classifiers: training loop, checkpoints and distributed training."""

"""Whole-scene maps: logits for every pixel, and the classes they stand for."""

"""Predicts logits and classes for every pixel of a scene."""

"""Prediction: logits for every pixel of a scene, and the classes they stand for."""

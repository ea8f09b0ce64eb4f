"""Scenes: a hyperspectral cube, its labels, and what is known about both."""

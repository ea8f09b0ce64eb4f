"""Measures accuracy on the test pixels, compares it with baselines and estimates its uncertainty."""

"""Evaluation: what the test pixels say, and how far it may be believed."""

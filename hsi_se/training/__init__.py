"""Training: the loop, and what it tells while it runs."""

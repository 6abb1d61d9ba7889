"""Checkpoints: where they are, whether they are what they claim, and how they become networks."""

"""Texts to representations: checkpoints, heads, batches, one forward pass."""

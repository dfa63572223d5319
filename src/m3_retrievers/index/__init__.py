"""Stores that recall and score: the Index protocol and the local index."""

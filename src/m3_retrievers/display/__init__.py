"""Hits, explanations and evaluations as HTML, in the terminal and as plots."""

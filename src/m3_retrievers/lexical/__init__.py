"""Other producers of term weights: BM25."""

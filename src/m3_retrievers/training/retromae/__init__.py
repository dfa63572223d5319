"""RetroMAE (arXiv 2205.12035): pretraining that makes the CLS state carry its text."""

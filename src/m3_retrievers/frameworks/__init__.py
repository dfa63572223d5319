"""What the adapters of both frameworks share, and neither framework knows."""

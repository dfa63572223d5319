"""An index written to a folder whole, a new generation each time."""

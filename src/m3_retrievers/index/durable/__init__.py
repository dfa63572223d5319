"""An index in one SQLite file, every acknowledged change on disk."""

"""Texts of a user's own folder and of the standard library: from files to passages."""

"""One page to try questions on: weights, depths, shares and matches; served, or in a notebook.

The page is plain HTML, CSS and JavaScript in this folder, and loads nothing from elsewhere.
``data`` says what it draws, as JSON values; a server answers with them, a notebook's page brings
them along.
"""

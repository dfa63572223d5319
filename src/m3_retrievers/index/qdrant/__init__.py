"""An index whose engine is Qdrant: embedded in a folder, a server, or a cluster.

``home`` is the index; ``filters`` and ``points`` say how records lie in a collection,
``hybrid`` how one request searches it; ``edge`` and ``client`` speak to the two engines.
"""

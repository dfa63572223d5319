"""An index in Milvus Lite, a Milvus server or a cluster: ``MilvusIndex`` (extra ``milvus``).

``index`` is the class; ``layout`` says how records lie in a collection and ``rows`` writes them,
``facts`` turns a filter into an expression, ``collection``, ``parts`` and ``documents`` read and
write, ``ranking`` finds the best, and ``connection`` alone speaks to pymilvus.
"""

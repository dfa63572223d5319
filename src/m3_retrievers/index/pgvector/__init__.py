"""An index in a PostgreSQL table with pgvector: ``PgVectorIndex`` (extra ``pgvector``).

``index`` is the class; it imports nothing of the client, so that the name exists without it.
``store`` holds the table, ``schema`` makes and recognises it, ``statements`` is its SQL,
``filters`` turns a filter into SQL, ``rows`` and ``values`` turn what is stored into what
PostgreSQL takes and back, ``connection`` runs it, and ``failures`` says what went wrong.
"""

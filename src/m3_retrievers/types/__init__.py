"""What flows between the stages: frozen, validated records.

text → ``Representations`` (dense, sparse, ColBERT) → ``Ranking`` (recall) → ``Hit``.
"""

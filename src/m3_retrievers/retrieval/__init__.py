"""HybridRetriever: encode → recall → complete → score → hits; storing, saving, reranking."""

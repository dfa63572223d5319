"""Encoders whose model runs behind HTTP: our own ``serve``, vLLM, text-embeddings-inference."""

"""The parts of HybridRetriever that are a job of their own."""

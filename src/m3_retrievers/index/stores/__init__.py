"""What a local index keeps of its documents, a store a mode."""

"""`llm-qfl deploy`: a federation of separate processes over TLS."""

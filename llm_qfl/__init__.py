"""What a user imports and calls; for now the `llm-qfl` command."""

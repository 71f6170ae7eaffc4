"""Local training: one client's loss, and the optimisers that lower it."""

"""The exact engine: batched state vectors in torch, planned once per ansatz."""

"""Data sets and formats that ship, a module each: ``DATASET`` is what a user's file would give."""

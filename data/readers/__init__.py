"""Readers of files and of the hub: from bytes to columns."""

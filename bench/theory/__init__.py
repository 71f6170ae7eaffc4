"""The theorems, measured."""

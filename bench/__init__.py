"""Every figure we quote: the command that made it, and its result in `RESULTS.md`."""

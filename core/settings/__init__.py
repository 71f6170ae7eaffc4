"""The settings of a run: declared once, a section a file, parsed into one frozen tree."""

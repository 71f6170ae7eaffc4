"""The ansätze that ship: a module each, whose name is what `quantum.model` calls it.

Each hands out ``ANSATZ``, the same kind of object as a user's own file (docs/extending/ansatz.md).
"""

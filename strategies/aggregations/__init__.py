"""The aggregations that ship, a module each: `aggregation.rule = "median"` is ``median.py``.

A module hands out its aggregation as ``AGGREGATION``, a function of the round's updates, their
weights and the global arrays, or a class whose objects are called like one. It stays light.
"""

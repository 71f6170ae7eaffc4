"""Attacks as benchmarks: what lying sites do to a run, and what a run gives away of a site's rows.

``python -m bench.attacks`` measures lies about updates and moments, ``bench.attacks.poison`` rows
with wrong labels and backdoors, ``bench.attacks.members`` who was among a site's rows,
``bench.attacks.rows`` what the rows were.
"""

from bench.attacks.lies import ATTACKS, BASE, LIARS, MOMENTS, measure, spoil

__all__ = ["ATTACKS", "BASE", "LIARS", "MOMENTS", "measure", "spoil"]

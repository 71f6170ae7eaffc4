"""The agents that ship, a module each: `agent.kind = "rule"` is ``rule.py``.

A module hands out its agent as ``AGENT``. It stays light: what an agent loads, it loads when it is
built. What agents have in common is `strategies.decisions`.
"""

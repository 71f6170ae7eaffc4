"""Engines run circuits: exact, any PennyLane device, Aer, fake and IBM devices."""

"""Any PennyLane device by name, as an engine."""

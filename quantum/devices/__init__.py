"""Circuits on devices that count shots: Aer, fake backends, IBM hardware."""

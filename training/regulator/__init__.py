"""Training of the regulator in simulated federations."""

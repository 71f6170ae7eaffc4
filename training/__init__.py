"""What makes the weights that we ship; never part of the Flower app bundle."""

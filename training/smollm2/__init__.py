"""A pretrained language model that learns the regulator's task."""

"""The ServerApp: builds the strategy from settings, drives the run, writes the results."""

"""Runs many joint optimisations at once."""

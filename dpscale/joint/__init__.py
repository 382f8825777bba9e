"""Iterative joint optimisation (Algorithm 1)."""

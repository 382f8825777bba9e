"""dpscale: DiffPerformer for many performers at once, on a Ray cluster."""

__version__ = "0.1.0"

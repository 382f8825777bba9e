"""`dpscale demo`: personalize with configs/demo.toml, which needs no input of the user."""

from __future__ import annotations

from jobs.personalize import run

__all__ = ["run"]

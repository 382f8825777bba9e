"""Settings: every option of a run."""

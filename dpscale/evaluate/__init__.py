"""Numbers about finished videos."""

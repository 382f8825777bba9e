"""Command-line entry points, one a job."""

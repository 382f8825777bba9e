"""What several benchmarks measure on."""

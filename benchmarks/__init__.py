"""One benchmark a question: python -m benchmarks.NAME --json FILE."""

"""What stages hand to each other, and its form and place on disk."""

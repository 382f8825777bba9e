"""The pose-guided video diffusion model."""

"""Training of the diffusion model on performers."""

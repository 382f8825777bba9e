"""Which settings suit a video: trials that share their beginnings, and what follows from them."""

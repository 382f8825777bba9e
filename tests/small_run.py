"""Settings of whole runs that take seconds."""

SMALL_SETTINGS = """
[diffusion]
preset = "tiny"
sampling_steps = 2
guidance_scale = 1.0

[field]
deformation_grid = { n_levels = 4, log2_hashmap_size = 10, base_resolution = 4 }
canonical_grid = { n_levels = 4, log2_hashmap_size = 10, base_resolution = 4 }
deformation_layers = 2
deformation_width = 16
canonical_width = 16
samples = 256

[scheduler]
slice_steps = 20
"""

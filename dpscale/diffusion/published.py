"""Architectures of the published checkpoints that docs/models.md lists: what their config.json files say, without weights.

Noted from the configs of ali-vilab/text-to-video-ms-1.7b, stable-diffusion-v1-5, guoyww/animatediff-motion-adapter-v1-5-2,
laion/CLIP-ViT-H-14-laion2B-s32B-b79K and openai/clip-vit-large-patch14; what is left out has the class's default."""

from __future__ import annotations

from typing import Any

WIDTHS = (320, 640, 1280, 1280)
"""Of Stable Diffusion's and ModelScope's UNets."""
_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2, "sample_size": 512,
}  # fmt: skip
_CLIP: dict[str, Any] = {"num_attention_heads": 16, "patch_size": 14, "image_size": 224}

PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "sd21": {
        "unet": {
            "_class_name": "UNet3DConditionModel", "sample_size": 32, "block_out_channels": WIDTHS, "layers_per_block": 2,
            "cross_attention_dim": 1024, "attention_head_dim": 64,
        },
        "vae": _VAE,
        "image_encoder": _CLIP | {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "projection_dim": 1024},
    },
    "sd15": {
        "unet": {
            "_class_name": "UNet2DConditionModel", "sample_size": 64, "block_out_channels": WIDTHS, "layers_per_block": 2,
            "cross_attention_dim": 768, "attention_head_dim": 8,
        },
        "motion_adapter": {"block_out_channels": WIDTHS},
        "vae": _VAE,
        "image_encoder": _CLIP | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "projection_dim": 768},
    },
}  # fmt: skip
"""Preset -> part -> its config."""

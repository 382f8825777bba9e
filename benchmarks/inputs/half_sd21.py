"""A network of sd21's shape with half its widths, drawn anew: 1.5 GiB of weights, for measurements that need a model of some size."""

from __future__ import annotations

from pathlib import Path

_HALF = {"block_out_channels": (160, 320, 640, 640), "attention_head_dim": 32}


def write_half_sd21(folder: Path) -> None:
    """In diffusers' folder format, for `diffusion.preset = sd21`."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from dpscale.diffusion.published import PUBLISHED

    published = PUBLISHED["sd21"]
    UNet3DConditionModel.from_config(published["unet"] | _HALF).save_pretrained(folder / "unet")
    AutoencoderKL.from_config(published["vae"] | {"block_out_channels": (64, 128, 256, 256)}).save_pretrained(folder / "vae")
    small = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    CLIPVisionModelWithProjection(CLIPVisionConfig(**published["image_encoder"] | small)).save_pretrained(folder / "image_encoder")
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")

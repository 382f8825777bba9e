"""Small checkpoints in the form in which the real ones are published: class names, keys of config.json, names of tensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, PNDMScheduler, UNet2DConditionModel, UNet3DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

WIDTHS, GROUPS, LATENT = (16, 32, 32, 32), 8, 8
EMBEDDING = {"sd21": 24, "sd15": 40}
_OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
_OLD_UNET_KEYS = [
    "_class_name",
    "_diffusers_version",
    "act_fn",
    "attention_head_dim",
    "block_out_channels",
    "center_input_sample",
    "cross_attention_dim",
    "down_block_types",
    "downsample_padding",
    "flip_sin_to_cos",
    "freq_shift",
    "in_channels",
    "layers_per_block",
    "mid_block_scale_factor",
    "norm_eps",
    "norm_num_groups",
    "out_channels",
    "sample_size",
    "up_block_types",
]
_OLD_VAE_KEYS = [
    "_class_name",
    "_diffusers_version",
    "act_fn",
    "block_out_channels",
    "down_block_types",
    "in_channels",
    "latent_channels",
    "layers_per_block",
    "norm_num_groups",
    "out_channels",
    "sample_size",
    "up_block_types",
]


def write_sd21(folder: Path, seed: int = 0) -> Path:
    """ModelScope's text-to-video UNet, its scheduler, the autoencoder of SD 2.1 and the vision model of OpenCLIP ViT-H/14."""
    torch.manual_seed(seed)
    unet = UNet3DConditionModel(
        sample_size=LATENT // 2, block_out_channels=WIDTHS, layers_per_block=2, norm_num_groups=GROUPS,
        cross_attention_dim=EMBEDDING["sd21"], attention_head_dim=8,
    )  # fmt: skip
    _unsilence(unet)
    unet.save_pretrained(folder / "unet")
    _write_vae(folder / "vae")
    CLIPVisionModelWithProjection(_vision(EMBEDDING["sd21"])).save_pretrained(folder / "image_encoder")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    edit_config(folder / "scheduler", skip_prk_steps=True)
    return folder


def write_sd15(folder: Path, seed: int = 0) -> Path:
    """Stable Diffusion 1.5, AnimateDiff's motion adapter and the whole CLIP ViT-L/14, text half and position_ids included."""
    torch.manual_seed(seed)
    UNet2DConditionModel(
        sample_size=LATENT, block_out_channels=WIDTHS, layers_per_block=2, norm_num_groups=GROUPS,
        cross_attention_dim=EMBEDDING["sd15"], attention_head_dim=8,
    ).save_pretrained(folder / "unet")  # fmt: skip
    _keep_keys(folder / "unet", _OLD_UNET_KEYS)
    adapter = MotionAdapter(block_out_channels=WIDTHS, motion_norm_num_groups=GROUPS)
    adapter.save_pretrained(folder / "motion_adapter")
    _write_vae(folder / "vae")
    _write_whole_clip(folder / "image_encoder", EMBEDDING["sd15"])
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    _keep_keys(folder / "scheduler", ["_class_name", "_diffusers_version", "beta_end", "beta_schedule", "beta_start", "num_train_timesteps",
               "set_alpha_to_one", "skip_prk_steps", "steps_offset", "trained_betas"], clip_sample=False)  # fmt: skip
    return folder


def edit_tensors(file: Path, rename: dict[str, str] | None = None, drop: str | None = None) -> None:
    """Spoils a checkpoint: tensors under other names, or one less."""
    tensors = load_file(file)
    for old, new in (rename or {}).items():
        tensors[new] = tensors.pop(old)
    tensors.pop(drop, None)
    save_file(tensors, file, metadata={"format": "pt"})


def edit_config(folder: Path, **values: object) -> None:
    file = next(folder.glob("*config.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _unsilence(unet: UNet3DConditionModel) -> None:
    """Temporal convolutions start silent; trained ones are not."""
    for name, parameter in unet.named_parameters():
        if "temp_convs" in name and "conv4" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def _write_vae(folder: Path) -> None:
    AutoencoderKL(
        block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4
    ).save_pretrained(folder)
    _keep_keys(folder, _OLD_VAE_KEYS)
    file = folder / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for name in load_file(file):
        for new, old in _OLD_ATTENTION.items():
            if f".attentions.0.{new}." in name:
                renamed[name] = name.replace(new, old)
    edit_tensors(file, renamed)


def _vision(embedding: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16, projection_dim=embedding
    )


def _write_whole_clip(folder: Path, embedding: int) -> None:
    text = CLIPTextConfig(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=_vision(7).to_dict(), projection_dim=embedding)).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _keep_keys(folder: Path, keys: list[str], **values: object) -> None:
    """Older releases of diffusers wrote fewer keys; what is left out has its default."""
    file = next(folder.glob("*config.json"))
    config = json.loads(file.read_text())
    file.write_text(json.dumps({key: config[key] for key in keys if key in config} | values, indent=2))

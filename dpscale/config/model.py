"""Settings of the diffusion model. Part of `schema.py`, which exports them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dpscale.config.section import Section


class PartsConfig(Section):
    """Parts of the model that lie elsewhere than `weights`: each a folder that holds the part's own files, or a hub id, followed by the
    folder inside that repository where there is one (owner/name/vae)."""

    unet: str | None = Field(default=None, min_length=1, description="sd21: UNet3DConditionModel; sd15: UNet2DConditionModel or UNetMotionModel.")
    motion_adapter: str | None = Field(default=None, min_length=1, description="sd15: MotionAdapter for a UNet2DConditionModel.")
    vae: str | None = Field(default=None, min_length=1, description="AutoencoderKL.")
    image_encoder: str | None = Field(default=None, min_length=1, description="CLIPVisionModelWithProjection, or a whole CLIPModel.")
    scheduler: str | None = Field(default=None, min_length=1, description="scheduler_config.json, read as DDIM's.")


class SamplerConfig(Section):
    """How the denoiser's predictions become steps."""

    kind: Literal["ddim", "dpmpp_2m", "unipc"] = Field(
        default="ddim",
        description="ddim (paper); dpmpp_2m: DPM-Solver++, second order, multistep; unipc: UniPC of order 2. The latter two need fewer steps "
        "for the same result; of a video's latents they keep one or three more copies.",
    )


class DiffusionConfig(Section):
    preset: Literal["tiny", "sd21", "sd15"] = Field(
        default="sd21",
        description="tiny: weights in the package, 128 px; sd21: the paper's size, a 3D UNet; sd15: Stable Diffusion 1.5 and a motion adapter.",
    )
    weights: str | None = Field(default=None, description="Local folder or hub id in diffusers format; none: the package's (tiny), or `parts` alone.")
    parts: PartsConfig = PartsConfig()
    latent_size: int = Field(
        default=64, ge=4, le=256, description="Side of the latents for which weights without a pose encoder get one: preprocess.size / 8."
    )
    pose_kinds: tuple[Literal["keypoints", "iuv"], ...] = Field(default=("keypoints", "iuv"), min_length=1, description="Pose conditions (S, A.1).")
    sampler: SamplerConfig = SamplerConfig()
    sampling_steps: int = Field(default=50, ge=1, le=1000, description="Denoising steps at full strength (paper: 50 of DDIM).")
    guidance_scale: float = Field(default=6.0, ge=1, le=50, description="Classifier-free guidance; 1 switches it off (VideoComposer: 6.0).")
    window: int = Field(default=16, ge=2, le=256, description="Frames denoised together (paper: 16).")
    stride: int = Field(default=8, ge=1, le=256, description="Frames between windows (paper: 8).")
    window_batch: int = Field(
        default=4,
        ge=1,
        le=1024,
        description="Windows that the UNet is given at once. Classifier-free guidance (guidance_scale > 1) gives each window twice, with and "
        "without identity: then half as many windows go into one call, at least one.",
    )

    @model_validator(mode="after")
    def _stride_fits_window(self) -> DiffusionConfig:
        if self.stride > self.window:
            raise ValueError(f"diffusion.stride = {self.stride} leaves gaps: it must be at most diffusion.window = {self.window}")
        return self

    @model_validator(mode="after")
    def _only_sd15_takes_a_motion_adapter(self) -> DiffusionConfig:
        if self.parts.motion_adapter is not None and self.preset != "sd15":
            raise ValueError(f"diffusion.parts.motion_adapter has no place in diffusion.preset = {self.preset!r}: leave it out, or take preset sd15")
        return self

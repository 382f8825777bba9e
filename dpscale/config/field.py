"""Settings of the video representation V_s. Part of `schema.py`, which exports them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dpscale.config.section import Section


class HashGridConfig(Section):
    """Names and meaning as in tiny-cuda-nn."""

    kind: Literal["fused", "reference", "tiny_cuda_nn"] = Field(
        default="fused", description="Fused kernels (C++, Triton), their plain torch reference, or tiny-cuda-nn where it is installed (CUDA only)."
    )
    table_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16 halves what a step reads; updates round stochastically, moments stay float32 (ours)."
    )
    n_levels: int = Field(default=16, ge=1, le=32)
    n_features_per_level: int = Field(default=2, ge=1, le=8)
    log2_hashmap_size: int = Field(default=19, ge=8, le=26)
    base_resolution: int = Field(default=16, ge=2, le=1024)
    per_level_scale: float = Field(default=1.38, gt=1, le=4)

    @model_validator(mode="after")
    def _tiny_cuda_nn_has_one_type(self) -> HashGridConfig:
        if self.kind == "tiny_cuda_nn" and self.table_dtype != "float32":
            raise ValueError("table_dtype = bfloat16 needs kind = fused or reference: the tables of tiny-cuda-nn are float32 here")
        return self


class CanonicalsConfig(Section):
    """Several canonical images (ours; the paper and CoDeF have one): large motion and 3D rotation blur a single one."""

    count: int = Field(default=1, ge=1, le=16, description="Canonical images, each for the frames of a pose (paper: 1).")
    softness: float = Field(
        default=0.1, gt=0, le=10, description="Distance of poses over which a weight falls by e, as part of the mean distance between key poses."
    )
    cutoff: float = Field(default=0.02, ge=0, lt=0.5, description="Weights below this part of a frame's largest are not evaluated at all.")


class BackgroundConfig(Section):
    """A still image behind the body (ours), for a camera that does not move."""

    layer: bool = Field(default=False, description="Composite the body over an image of its own that no deformation moves.")
    margin: float = Field(default=0.03, ge=0, le=1, description="How far clothes and hair may reach beyond the driving body, in picture heights.")
    edge: float = Field(default=0.02, gt=0, le=1, description="Width of the soft edge around that, in picture heights.")


class NeighbourLossesConfig(Section):
    """Losses on differences between neighbouring pixels and frames. A weight of zero costs nothing."""

    samples: int = Field(default=4096, ge=1, le=2**24, description="Pixels per step whose neighbours are looked at, if any weight is above 0.")
    gradient_weight: float = Field(default=0.0, ge=0, le=1000, description="Weight of the image gradient's error (CoDeF's gradient loss; paper: 0).")
    space_weight: float = Field(default=0.0, ge=0, le=1000, description="Weight of the deformation's total variation in space (ours).")
    time_weight: float = Field(default=0.0, ge=0, le=1000, description="Weight of the deformation's total variation in time (ours).")

    @property
    def drawn(self) -> int:
        """Samples that a step draws."""
        return self.samples if self.gradient_weight + self.space_weight + self.time_weight > 0 else 0


class FieldConfig(Section):
    """V_s = C(D(H(x, y, n))); sizes are CoDeF's (METHOD 4)."""

    deformation_grid: HashGridConfig = HashGridConfig()
    canonical_grid: HashGridConfig = HashGridConfig(per_level_scale=1.44)
    deformation_layers: int = Field(default=8, ge=1, le=32)
    deformation_width: int = Field(default=64, ge=4, le=1024)
    canonical_layers: int = Field(default=2, ge=1, le=32)
    canonical_width: int = Field(default=64, ge=4, le=1024)
    canonicals: CanonicalsConfig = CanonicalsConfig()
    background: BackgroundConfig = BackgroundConfig()
    lr: float = Field(default=1e-3, gt=0, le=1, description="Adam learning rate (paper: 1e-3).")
    lr_milestones: tuple[int, ...] = Field(default=(2500, 5000, 7500), description="Steps at which the rate halves (CoDeF).")
    networks: Literal["fused", "torch"] = Field(default="fused", description="fused: one C++ kernel per network on the CPU (ours); same numbers.")
    adam: Literal["lazy", "dense"] = Field(
        default="lazy", description="lazy: a step leaves rows of the tables alone that it did not use (tiny-cuda-nn); dense: torch's Adam."
    )
    samples: int = Field(default=16384, ge=16, le=2**24, description="Pixels per step.")
    flow_samples: int = Field(default=4096, ge=1, le=2**24, description="Pixels with known human flow per step (ours).")
    neighbour_losses: NeighbourLossesConfig = NeighbourLossesConfig()

"""The model without weights is the one that is loaded with them."""

from __future__ import annotations

import pytest
import torch

from dpscale.config.schema import DiffusionConfig
from dpscale.data.types import InputError
from dpscale.diffusion.untrained import untrained_model
from dpscale.diffusion.weights import load_model
from tests.unit.diffusion.published import LATENT, write_sd15, write_sd21


def shapes(*modules: torch.nn.Module) -> list[dict[str, torch.Size]]:
    return [{name: tensor.shape for name, tensor in module.state_dict().items()} for module in modules]


@pytest.mark.parametrize("preset", ["tiny", "sd21", "sd15"])
def test_every_tensor_has_the_shape_that_the_loaded_model_has(preset, tmp_path):
    weights = None if preset == "tiny" else str({"sd21": write_sd21, "sd15": write_sd15}[preset](tmp_path))
    settings = DiffusionConfig(preset=preset, weights=weights, latent_size=LATENT)
    loaded = load_model(settings)
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()
    with torch.device("meta"):
        model = untrained_model(settings)
    assert shapes(model.denoiser, model.autoencoder, model.image_encoder) == shapes(loaded.denoiser, loaded.autoencoder, loaded.image_encoder)
    assert all(p.is_meta for p in model.denoiser.parameters())
    assert model.assumed == ()


def test_a_hub_id_is_taken_as_published_and_said():
    with torch.device("meta"):
        model = untrained_model(DiffusionConfig(preset="sd15", weights="owner/name"))
    assert model.assumed == ("unet", "motion_adapter", "vae", "image_encoder")


def test_a_folder_without_the_parts_config_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"part 'unet' has no config.json"):
        untrained_model(DiffusionConfig(preset="sd21", weights=str(tmp_path)))

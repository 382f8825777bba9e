import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dpscale.config.schema import DiffusionConfig
from dpscale.data.types import InputError
from dpscale.diffusion.delta import load_delta, save_delta
from dpscale.diffusion.encoders import to_unit
from dpscale.diffusion.weights import load_model, to_uint8
from tests.unit.diffusion.models import SIZE, small_model


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder as ModelScope text-to-video publishes it (class names, configs, tensor names), with small widths."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    UNet3DConditionModel(
        sample_size=4, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=24, attention_head_dim=8,
    ).save_pretrained(folder / "unet")  # fmt: skip
    AutoencoderKL(
        block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4
    ).save_pretrained(folder / "vae")
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16, projection_dim=24
        )
    ).save_pretrained(folder / "image_encoder")
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    return folder


def _settings(folder, preset="sd21"):
    return DiffusionConfig(preset=preset, weights=str(folder))


def test_a_published_checkpoint_is_widened_by_pose_and_keeps_its_weights(published):
    model = load_model(_settings(published))
    kernel = load_file(published / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"]
    assert model.denoiser.unet.config.in_channels == 4 + 8
    assert torch.equal(model.denoiser.unet.conv_in.weight[:, :4], kernel)
    assert model.denoiser.unet.conv_in.weight[:, 4:].abs().max() == 0
    assert model.embed_image(np.zeros((SIZE, SIZE, 3), np.uint8)).shape == (24,)
    assert model.noise_schedule.config.prediction_type == "epsilon"


def test_a_saved_model_loads_equal(tmp_path):
    model = small_model(3)
    model.save(tmp_path)
    loaded = load_model(_settings(tmp_path, "tiny"))
    for name, part in model.modules().items():
        for key, tensor in part.state_dict().items():
            assert torch.equal(loaded.modules()[name].state_dict()[key], tensor), f"{name}.{key}"


def test_a_checkpoint_of_another_architecture_names_the_first_wrong_tensors(published, tmp_path):
    small_model().save(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_strange.weight"] = tensors.pop("conv_in.weight")
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"conv_in\.weight"):
        load_model(_settings(tmp_path, "tiny"))
    with pytest.raises(InputError, match=r"vae.*PatchAutoencoder"):
        load_model(_settings(published, "tiny"))


def test_missing_weights_say_what_to_give(tmp_path):
    with pytest.raises(InputError, match=r"diffusion\.weights is not set"):
        load_model(DiffusionConfig(preset="sd21"))
    with pytest.raises(InputError, match=r"nowhere.*unet"):
        load_model(_settings(tmp_path / "nowhere"))


def test_the_embedded_model_loads_and_its_card_names_its_seeds():
    from importlib import resources

    model = load_model(DiffusionConfig(preset="tiny"))
    assert model.denoiser.use_reference
    card = json.loads((resources.files("dpscale.diffusion") / "tiny" / "_COMPLETE.json").read_text())
    assert card["performer_seeds"][1] < card["held_out_seeds"][0] < 1_000_000
    size = sum(f.stat().st_size for f in __import__("pathlib").Path(str(resources.files("dpscale.diffusion") / "tiny")).rglob("*") if f.is_file())
    assert size <= 25e6


def test_a_delta_holds_only_what_changed(tmp_path):
    base, tuned = small_model(0).denoiser, small_model(0).denoiser
    name = "unet.conv_in.weight"
    with torch.no_grad():
        tuned.get_parameter(name).add_(1.0)
    save_delta(tmp_path / "delta.safetensors", tuned, [name])
    assert list(load_file(tmp_path / "delta.safetensors")) == [name]
    load_delta(tmp_path / "delta.safetensors", base)
    assert all(torch.equal(a, b) for a, b in zip(base.parameters(), tuned.parameters(), strict=True))
    with pytest.raises(InputError, match=r"unet\.conv_in\.weight"):
        load_delta(tmp_path / "delta.safetensors", small_model(0).autoencoder)


def test_pictures_survive_the_change_of_range():
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    assert np.array_equal(to_uint8(to_unit(frames)), frames)

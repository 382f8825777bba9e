from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dpscale.config.schema import DiffusionConfig
from dpscale.data.types import InputError
from dpscale.diffusion.delta import save_delta
from dpscale.diffusion.export import CARD, export_model
from dpscale.diffusion.weights import load_model
from tests.unit.diffusion.models import small_model


@pytest.fixture
def finetuned(tmp_path: Path) -> tuple[DiffusionConfig, Path]:
    """A saved base and the deltas of a performer whose tensors are the base's plus one."""
    base, tuned, folder = small_model(), small_model(), tmp_path / "finetune" / "ann"
    base.save(tmp_path / "base")
    with torch.no_grad():
        tuned.denoiser.unet.conv_in.weight.add_(1)
        tuned.autoencoder.conv_out.bias.add_(1)
    save_delta(folder / "denoiser.safetensors", tuned.denoiser, ["unet.conv_in.weight"])
    save_delta(folder / "decoder.safetensors", tuned.autoencoder, ["conv_out.bias"])
    return DiffusionConfig(preset="tiny", weights=str(tmp_path / "base"), sampling_steps=3), folder


def test_the_folder_is_base_and_deltas_and_loads_as_weights(finetuned, tmp_path: Path):
    settings, folder = finetuned
    export_model(settings, folder, tmp_path / "ann", {"performer": "ann"})
    base, exported = load_model(settings), load_model(settings.model_copy(update={"weights": str(tmp_path / "ann")}))
    moved = set()
    for part, module in base.modules().items():
        found = exported.modules()[part].state_dict()
        assert found.keys() == module.state_dict().keys()
        moved |= {(part, name) for name, t in module.state_dict().items() if not torch.equal(found[name], t)}
    assert moved == {("unet", "conv_in.weight"), ("vae", "conv_out.bias")}
    assert torch.equal(exported.denoiser.unet.conv_in.weight, base.denoiser.unet.conv_in.weight + 1)
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(exported.embed_image(picture), base.embed_image(picture))


def test_the_card_says_what_is_there_and_where_it_comes_from(finetuned, tmp_path: Path):
    settings, folder = finetuned
    export_model(settings, folder, tmp_path / "ann", {"performer": "ann"})
    card = json.loads((tmp_path / "ann" / CARD).read_text())
    assert card["provenance"]["performer"] == "ann"
    assert card["provenance"]["deltas_sha256"]["denoiser.safetensors"] == hashlib.sha256((folder / "denoiser.safetensors").read_bytes()).hexdigest()
    assert card["parts"]["vae"] == {"class": "PatchAutoencoder", "library": "dpscale"}
    assert card["parts"]["unet"] == {"class": "UNet3DConditionModel", "library": "diffusers"}
    assert all((tmp_path / "ann" / part).is_dir() for part in card["parts"])
    assert card["sampling"]["sampling_steps"] == 3
    assert card["pose"] == {"kinds": ["keypoints", "iuv"], "resolution": 16}


def test_a_folder_that_holds_something_is_left_alone(finetuned, tmp_path: Path):
    settings, folder = finetuned
    to = tmp_path / "full"
    to.mkdir()
    export_model(settings, folder, to, {})
    before = {path: path.stat().st_mtime_ns for path in to.rglob("*")}
    for taken in (to, tmp_path / "base" / "unet" / "config.json"):
        with pytest.raises(InputError, match="is there and not an empty folder"):
            export_model(settings, folder, taken, {})
    assert {path: path.stat().st_mtime_ns for path in to.rglob("*")} == before


def test_deltas_of_another_base_leave_no_folder(finetuned, tmp_path: Path):
    settings, folder = finetuned
    save_delta(folder / "decoder.safetensors", torch.nn.Linear(2, 2), ["weight"])
    with pytest.raises(InputError, match="trained on another base"):
        export_model(settings, folder, tmp_path / "ann", {})
    assert {path.name for path in tmp_path.iterdir()} == {"base", "finetune"}

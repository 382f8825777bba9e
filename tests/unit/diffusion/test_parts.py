import pytest

from dpscale.config.schema import DiffusionConfig, PartsConfig
from dpscale.data.types import InputError
from dpscale.diffusion.parts import named_parts_digest, part_place
from dpscale.finetune.checkpoint import base_digest
from dpscale.preprocess.keys import encoder_digest


def test_places_in_folders_and_repositories(tmp_path):
    settings = DiffusionConfig(
        parts=PartsConfig(unet="owner/model/deep/unet", vae=str(tmp_path), image_encoder="owner/encoder", scheduler="./mine/scheduler")
    )
    found = {part: part_place(settings, "owner/all", part) for part in ("unet", "vae", "image_encoder", "scheduler", "pose_encoder")}
    assert {part: (place.repository, place.subfolder) for part, place in found.items()} == {
        "unet": ("owner/model", "deep/unet"),
        "vae": (str(tmp_path), ""),
        "image_encoder": ("owner/encoder", ""),
        "scheduler": ("./mine/scheduler", ""),
        "pose_encoder": ("owner/all", "pose_encoder"),
    }
    assert str(found["unet"]) == "diffusion.parts.unet = owner/model/deep/unet: part 'unet'"
    assert str(found["pose_encoder"]) == "diffusion.weights = owner/all: part 'pose_encoder'"
    inside = part_place(DiffusionConfig(), "owner/all/inside", "vae")
    assert (inside.repository, inside.subfolder) == ("owner/all", "inside/vae")


def test_a_relative_folder_that_exists_is_one(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name" / "vae").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    place = part_place(DiffusionConfig(parts=PartsConfig(vae="owner/name/vae")), None, "vae")
    assert (place.repository, place.subfolder, place.is_local) == ("owner/name/vae", "", False)
    (tmp_path / "owner" / "name" / "vae" / "config.json").write_text("{}")
    assert place.is_local


def test_what_is_missing_is_named():
    with pytest.raises(InputError, match=r"diffusion\.weights is not set, nor is diffusion\.parts\.vae.*unet, vae, image_encoder"):
        part_place(DiffusionConfig(preset="sd21"), None, "vae")
    with pytest.raises(InputError, match=r"preset sd15.*unet, motion_adapter, vae"):
        part_place(DiffusionConfig(preset="sd15"), None, "unet")


def test_the_digest_follows_the_named_parts_alone(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"one")
    settings = DiffusionConfig(parts=PartsConfig(vae=str(tmp_path), unet="owner/unet"))
    first = named_parts_digest(settings, ("vae",))
    assert named_parts_digest(settings, ("image_encoder",)) == ""
    assert named_parts_digest(settings, ("vae", "unet")) not in ("", first)
    (tmp_path / "a.safetensors").write_bytes(b"two")
    assert named_parts_digest(settings, ("vae",)) != first
    other = DiffusionConfig(parts=PartsConfig(unet="owner/other"))
    assert named_parts_digest(settings, ("unet",)) != named_parts_digest(other, ("unet",))


@pytest.mark.parametrize("weights", [None, "owner/all"])
def test_results_are_kept_for_the_same_parts_only(weights):
    """Latents follow from the encoders, finetuned weights from every part."""
    plain, vae, unet = (DiffusionConfig(weights=weights, parts=PartsConfig(**own)) for own in ({}, {"vae": "owner/vae"}, {"unet": "owner/unet"}))
    assert encoder_digest(plain) == encoder_digest(unet) != encoder_digest(vae)
    assert len({base_digest(plain), base_digest(vae), base_digest(unet)}) == 3

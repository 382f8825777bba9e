"""Both real-size backbones, from small checkpoints in their published form, through the loaders that read the real ones."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNet3DConditionModel, UNetMotionModel

from dpscale.config.schema import DiffusionConfig, PartsConfig
from dpscale.data.types import InputError
from dpscale.diffusion.backbones import motion_unet
from dpscale.diffusion.conditions import POSE_CHANNELS, Conditions
from dpscale.diffusion.encoders import load_encoders
from dpscale.diffusion.refine import refine
from dpscale.diffusion.weights import load_model
from tests.unit.diffusion.published import EMBEDDING, LATENT, edit_config, edit_tensors, write_sd15, write_sd21

PRESETS = ("sd21", "sd15")
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folder of each preset's checkpoint. Tests that change one take a copy."""
    root = tmp_path_factory.mktemp("published")
    return {"sd21": write_sd21(root / "sd21"), "sd15": write_sd15(root / "sd15")}


@pytest.fixture
def sd15(published, tmp_path) -> Path:
    return Path(shutil.copytree(published["sd15"], tmp_path / "sd15"))


def settings(preset: str, folder: Path | None, **others: object) -> DiffusionConfig:
    return DiffusionConfig(preset=preset, weights=None if folder is None else str(folder), latent_size=LATENT, **others)


def conditions(preset: str, batch: int, frames: int) -> Conditions:
    g = torch.Generator().manual_seed(4)
    maps = {kind: torch.rand(batch, frames, c, 4 * LATENT, 4 * LATENT, generator=g) for kind, c in POSE_CHANNELS.items()}
    return Conditions(maps, torch.randn(batch, 1, EMBEDDING[preset], generator=g))


def stock_unet(preset: str, folder: Path):
    """As diffusers alone loads it."""
    if preset == "sd21":
        return UNet3DConditionModel.from_pretrained(folder / "unet").eval()
    adapter = MotionAdapter.from_pretrained(folder / "motion_adapter")
    return UNetMotionModel.from_unet2d(UNet2DConditionModel.from_pretrained(folder / "unet"), adapter).eval()


@pytest.mark.parametrize("preset", PRESETS)
def test_before_training_the_output_is_the_published_models_to_the_bit(published, preset):
    model, stock = load_model(settings(preset, published[preset])), stock_unet(preset, published[preset])
    told, noisy = conditions(preset, 2, 3), torch.randn(2, 4, 3, LATENT, LATENT, generator=torch.Generator().manual_seed(1))
    context = told.image_embedding if preset == "sd21" else told.image_embedding.repeat_interleave(3, 0)
    with torch.no_grad():
        assert torch.equal(model.denoiser(noisy, torch.tensor([700, 20]), told), stock(noisy, torch.tensor([700, 20]), context).sample)
    assert model.denoiser.unet.config.in_channels == 4 + 8
    assert not model.denoiser.unet.conv_in.weight[:, 4:].any()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_frame_and_clip_hears_its_own_identity(published, preset):
    denoiser, told = load_model(settings(preset, published[preset])).denoiser, conditions(preset, 2, 3)
    noisy, t = torch.randn(2, 4, 3, LATENT, LATENT), torch.tensor([700, 20])
    with torch.no_grad():
        together, without = denoiser(noisy, t, told), denoiser(noisy, t, told.without_identity())
        for b in range(2):
            maps = {kind: pose[b : b + 1] for kind, pose in told.pose_maps.items()}
            alone = denoiser(noisy[b : b + 1], t[b : b + 1], Conditions(maps, told.image_embedding[b : b + 1]))
            torch.testing.assert_close(together[b : b + 1], alone, atol=1e-4, rtol=1e-4)  # sums over another batch size
    assert all(not torch.allclose(together[:, :, frame], without[:, :, frame], atol=1e-3) for frame in range(3))


@pytest.mark.parametrize("preset", PRESETS)
def test_frames_see_each_other(published, preset):
    denoiser, told = load_model(settings(preset, published[preset])).denoiser, conditions(preset, 1, 3)
    noisy, t = torch.randn(1, 4, 3, LATENT, LATENT), torch.tensor([700])
    other = noisy.clone()
    other[:, :, 2] += 1
    with torch.no_grad():
        assert not torch.allclose(denoiser(noisy, t, told)[:, :, 0], denoiser(other, t, told)[:, :, 0], atol=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_saved_model_loads_equal_to_the_bit_and_needs_nothing_else(published, preset, tmp_path):
    model = load_model(settings(preset, published[preset]))
    with torch.no_grad():
        model.denoiser.unet.conv_in.weight.add_(0.01)
    model.save(tmp_path / "saved")
    loaded = load_model(settings(preset, tmp_path / "saved"))
    assert type(loaded.denoiser.unet) is {"sd21": UNet3DConditionModel, "sd15": UNetMotionModel}[preset]
    for name, part in model.modules().items():
        state = loaded.modules()[name].state_dict()
        assert state.keys() == part.state_dict().keys()
        assert all(torch.equal(state[key], tensor) for key, tensor in part.state_dict().items()), name
    told, noisy = conditions(preset, 1, 2), torch.randn(1, 4, 2, LATENT, LATENT)
    with torch.no_grad():
        assert torch.equal(model.denoiser(noisy, torch.tensor([9]), told), loaded.denoiser(noisy, torch.tensor([9]), told))
    before, after = ({k: v for k, v in m.noise_schedule.config.items() if k != "_use_default_values"} for m in (model, loaded))
    assert after == before


@pytest.mark.parametrize("preset", PRESETS)
def test_parts_may_lie_apart(published, preset):
    folder = published[preset]
    own = PartsConfig(**{part.name: str(part) for part in folder.iterdir()})
    whole, apart = load_model(settings(preset, folder)), load_model(settings(preset, None, parts=own))
    for name, part in whole.modules().items():
        state = apart.modules()[name].state_dict()
        assert all(torch.equal(state[key], tensor) for key, tensor in part.state_dict().items()), name
    for part in folder.iterdir():
        with pytest.raises(InputError, match=rf"diffusion\.weights is not set, nor is diffusion\.parts\.{part.name}"):
            load_model(settings(preset, None, parts=own.model_copy(update={part.name: None})))


def _repository(home: Path, name: str, *parts: tuple[Path, str]) -> None:
    """Files of a hub repository as huggingface_hub keeps them once they are downloaded."""
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    for source, inside in parts:
        shutil.copytree(source, folder / "snapshots" / ("a" * 40) / inside, dirs_exist_ok=True)


def test_hub_ids_with_and_without_a_folder_are_read_from_the_hubs_cache(sd15, tmp_path):
    _repository(tmp_path, "owner/sd15", *((sd15 / part, part) for part in ("unet", "vae", "scheduler")))
    _repository(tmp_path, "owner/adapter", (sd15 / "motion_adapter", "."))
    _repository(tmp_path, "owner/encoders", (sd15 / "image_encoder", "models/image_encoder"))
    own = PartsConfig(motion_adapter="owner/adapter", image_encoder="owner/encoders/models/image_encoder")
    chosen = settings("sd15", None, parts=own).model_copy(update={"weights": "owner/sd15"})
    load = "load_model(DiffusionConfig.model_validate_json(sys.argv[1])).save(Path(sys.argv[2]))"
    imports = (
        "import sys; from pathlib import Path; from dpscale.config.schema import DiffusionConfig; from dpscale.diffusion.weights import load_model; "
    )
    command = [sys.executable, "-c", imports + load, chosen.model_dump_json(), str(tmp_path / "saved")]
    subprocess.run(command, check=True, env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}, cwd=Path(__file__).parents[3])
    found, local = load_model(settings("sd15", tmp_path / "saved")), load_model(settings("sd15", sd15))
    for name, part in local.modules().items():
        state = found.modules()[name].state_dict()
        assert all(torch.equal(state[key], tensor) for key, tensor in part.state_dict().items()), name


@pytest.mark.parametrize("part", ["unet", "motion_adapter", "vae", "image_encoder", "scheduler"])
def test_a_part_that_the_weights_lack_names_its_setting(sd15, part):
    shutil.rmtree(sd15 / part)
    with pytest.raises(InputError, match=rf"diffusion\.weights = .*part '{part}'.*if it lies elsewhere, set diffusion\.parts\.{part}$"):
        load_model(settings("sd15", sd15))


def test_a_part_named_on_its_own_stands_in_for_that_of_the_weights(published, tmp_path):
    other = write_sd21(tmp_path / "other", seed=1)
    model = load_model(settings("sd21", published["sd21"], parts=PartsConfig(unet=str(other / "unet"))))
    stock = stock_unet("sd21", other)
    assert torch.equal(model.denoiser.unet.conv_out.weight, stock.conv_out.weight)


def test_a_fresh_pose_encoder_is_always_the_same_and_leaves_the_generator_alone(published):
    torch.manual_seed(1)
    first = load_model(settings("sd21", published["sd21"])).denoiser.pose_encoder.state_dict()
    torch.manual_seed(2)
    again = load_model(settings("sd21", published["sd21"])).denoiser.pose_encoder.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_whole_pass_with_guidance_repeats_to_the_bit(published, preset):
    chosen = settings(preset, published[preset], sampling_steps=2, guidance_scale=3.0, window=4, stride=2)
    model, told = load_model(chosen), conditions(preset, 1, 5)
    made = [refine(model.denoiser, model.noise_schedule, told, None, 1.0, chosen, seed=3) for _ in range(2)]
    assert made[0].shape == (5, 4, LATENT, LATENT)
    assert torch.isfinite(made[0]).all()
    assert torch.equal(*made)
    unguided = refine(model.denoiser, model.noise_schedule, replace(told, image_embedding=-told.image_embedding), None, 1.0, chosen, seed=3)
    assert not torch.allclose(made[0], unguided)


def test_another_size_and_too_many_frames_are_refused_with_the_setting(published):
    denoiser = load_model(settings("sd15", published["sd15"])).denoiser
    with pytest.raises(InputError, match=r"16 x 16, 8 x 8.*diffusion\.latent_size"):
        denoiser(torch.randn(1, 4, 2, 16, 16), torch.tensor([1]), conditions("sd15", 1, 2))
    with pytest.raises(InputError, match=r"33 frames.*at most 32.*finetune\.clip_frames"):
        denoiser(torch.randn(1, 4, 33, LATENT, LATENT), torch.tensor([1]), conditions("sd15", 1, 33))


@pytest.mark.parametrize(
    ("part", "tensor"),
    [
        ("unet", "mid_block.attentions.0.proj_in.weight"),
        ("motion_adapter", "mid_block.motion_modules.0.proj_out.bias"),
        ("vae", "post_quant_conv.bias"),
        ("image_encoder", "visual_projection.weight"),
    ],
)
def test_a_partial_or_strange_part_names_its_first_wrong_tensors(sd15, part, tensor):
    file = next((sd15 / part).glob("*.safetensors"))
    edit_tensors(file, rename={tensor: "strange.weight"})
    with pytest.raises(InputError, match=rf"part '{part}'.*missing tensors: \['{tensor}'\], unexpected: \['strange\.weight'\]"):
        load_model(settings("sd15", sd15))


def test_a_tensor_of_another_shape_is_named(sd15):
    edit_config(sd15 / "unet", cross_attention_dim=48)
    with pytest.raises(InputError, match=r"part 'unet'.*attn2\.to_k\.weight"):
        load_model(settings("sd15", sd15))
    edit_config(sd15 / "image_encoder", projection_dim=48)
    with pytest.raises(InputError, match=r"part 'image_encoder'.*visual_projection\.weight has shape \(40, 16\).*\(48, 16\)"):
        load_encoders(settings("sd15", sd15))


def test_pickles_are_not_read(sd15):
    for part, name in (("unet", "diffusion_pytorch_model.bin"), ("image_encoder", "pytorch_model.bin")):
        copy = Path(shutil.copytree(sd15 / part, sd15 / f"pickled_{part}"))
        torch.save({}, copy / name)
        next(copy.glob("*.safetensors")).unlink()
        with pytest.raises(InputError, match=rf"diffusion\.parts\.{part} = .*safetensors"):
            load_model(settings("sd15", sd15, parts=PartsConfig(**{part: str(copy)})))


def test_an_adapter_that_does_not_fit_is_refused(sd15):
    for number, (changes, message) in enumerate([
        ({"motion_layers_per_block": 1}, "number of layers per block"),
        ({"block_out_channels": (16, 32)}, "number of blocks"),
        ({"block_out_channels": (16, 16, 32, 32)}, r"down_blocks\.1\.motion_modules.*shape"),
        ({"motion_norm_num_groups": 4}, "motion_norm_num_groups = 4"),
        ({"conv_in_channels": 9}, "conv_in_channels = 9"),
    ]):  # fmt: skip
        place = sd15 / f"adapter_{number}"
        MotionAdapter(**{"block_out_channels": (16, 32, 32, 32), "motion_norm_num_groups": 8} | changes).save_pretrained(place)
        with pytest.raises(InputError, match=rf"diffusion\.parts\.motion_adapter = .*{message}"):
            load_model(settings("sd15", sd15, parts=PartsConfig(motion_adapter=str(place))))


def test_an_adapter_without_a_middle_is_taken_whole(sd15):
    MotionAdapter(block_out_channels=(16, 32, 32, 32), motion_norm_num_groups=8, use_motion_mid_block=False).save_pretrained(sd15 / "without_middle")
    model = load_model(settings("sd15", sd15, parts=PartsConfig(motion_adapter=str(sd15 / "without_middle"))))
    assert not any(name.startswith("mid_block.motion_modules") for name in model.denoiser.unet.state_dict())


def test_what_a_motion_unet_would_leave_out_is_refused():
    sizes = {"block_out_channels": (16, 32), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "norm_num_groups": 8,
             "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 16}  # fmt: skip
    adapter = MotionAdapter(block_out_channels=(16, 32), motion_norm_num_groups=8)
    with pytest.raises(ValueError, match="class_embed_type"):
        motion_unet(UNet2DConditionModel(**sizes, class_embed_type="timestep"), adapter)
    with pytest.raises(ValueError, match="flip_sin_to_cos = False"):
        motion_unet(UNet2DConditionModel(**sizes, flip_sin_to_cos=False), adapter)
    unet = UNet2DConditionModel(**sizes)
    unet.lost = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"unexpected: \['lost\.bias', 'lost\.weight'\]"):
        motion_unet(unet, adapter)


def test_motion_parts_in_the_wrong_place_are_refused(published, sd15, tmp_path):
    with pytest.raises(InputError, match=r"is a UNet3DConditionModel; preset sd15 takes"):
        load_model(settings("sd15", published["sd21"]))
    with pytest.raises(InputError, match=r"diffusion\.window = 40.*at most 32 frames"):
        load_model(settings("sd15", sd15, window=40))
    load_model(settings("sd15", sd15)).save(tmp_path / "saved")
    with pytest.raises(InputError, match=r"leave out diffusion\.parts\.motion_adapter"):
        load_model(settings("sd15", tmp_path / "saved", parts=PartsConfig(motion_adapter=str(sd15 / "motion_adapter"))))
    with pytest.raises(ValueError, match=r"diffusion\.parts\.motion_adapter has no place in diffusion\.preset = 'sd21'"):
        settings("sd21", sd15, parts=PartsConfig(motion_adapter=str(sd15 / "motion_adapter")))


def test_parts_of_two_families_are_refused(published, sd15):
    with pytest.raises(InputError, match=r"embeddings of 24 numbers, the unet takes 40.*ViT-L/14"):
        load_model(settings("sd15", sd15, parts=PartsConfig(image_encoder=str(published["sd21"] / "image_encoder"))))

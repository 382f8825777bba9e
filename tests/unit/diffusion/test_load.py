import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPVisionModelWithProjection

from dpscale.data.types import InputError
from dpscale.diffusion.autoencoder import KLAutoencoder
from dpscale.diffusion.encoders import Encoders
from dpscale.diffusion.load import load_image_encoder, load_noise_schedule, load_part
from dpscale.diffusion.parts import Place
from dpscale.diffusion.refine import sampling_schedule
from tests.unit.diffusion.published import write_sd15


@pytest.fixture(scope="module")
def sd15(tmp_path_factory):
    return write_sd15(tmp_path_factory.mktemp("sd15"))


def place(folder, part="scheduler") -> Place:
    return Place(f"diffusion.weights = {folder}", part, str(folder), part)


def test_the_checkpoints_of_these_tests_have_published_names(sd15):
    """The names as Stable Diffusion 1.5 and AnimateDiff publish them, so that a new release of diffusers cannot rename them unseen."""
    names = {part: set(load_file(sd15 / part / "diffusion_pytorch_model.safetensors")) for part in ("unet", "motion_adapter", "vae")}
    assert {"conv_in.weight", "time_embedding.linear_1.weight", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"} <= names["unet"]
    blocks = "down_blocks.0.motion_modules.1", "mid_block.motion_modules.0", "up_blocks.3.motion_modules.2"
    assert {f"{block}.transformer_blocks.0.pos_embed.pe" for block in blocks} <= names["motion_adapter"]
    assert {"encoder.mid_block.attentions.0.query.weight", "decoder.mid_block.attentions.0.proj_attn.bias"} <= names["vae"]
    classes = {part: json.loads((sd15 / part / "config.json").read_text())["_class_name"] for part in names}
    assert classes == {"unet": "UNet2DConditionModel", "motion_adapter": "MotionAdapter", "vae": "AutoencoderKL"}
    assert json.loads((sd15 / "image_encoder" / "config.json").read_text())["architectures"] == ["CLIPModel"]


def test_old_names_of_the_autoencoders_attention_are_read(sd15):
    vae = load_part(AutoencoderKL, place(sd15, "vae"))
    old = load_file(sd15 / "vae" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(vae.decoder.mid_block.attentions[0].to_q.weight, old["decoder.mid_block.attentions.0.query.weight"])
    assert vae.config.scaling_factor == 0.18215  # not in the published config: the default


def test_the_vision_half_of_a_whole_clip_embeds_as_the_whole_does(sd15):
    whole, half = CLIPModel.from_pretrained(sd15 / "image_encoder"), load_image_encoder(place(sd15, "image_encoder"))
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        projected = whole.visual_projection(whole.vision_model(pixels).pooler_output)
        assert torch.equal(half(pixels).image_embeds, projected)
    assert half.config.projection_dim == projected.shape[1] == 40
    vae = KLAutoencoder(load_part(AutoencoderKL, place(sd15, "vae")))
    assert Encoders(vae, half.eval()).embed_image(np.zeros((20, 20, 3), np.uint8)).shape == (40,)


def test_only_the_text_half_may_be_left_over(sd15):
    with pytest.raises(InputError, match=r"unexpected: \['logit_scale', 'text_model"):
        load_part(CLIPVisionModelWithProjection, place(sd15, "image_encoder"), config=load_image_encoder(place(sd15, "image_encoder")).config)


def test_a_scheduler_of_another_sampler_keeps_its_betas_and_prediction(tmp_path):
    PNDMScheduler(beta_start=0.001, beta_end=0.02, beta_schedule="linear", prediction_type="v_prediction").save_pretrained(tmp_path / "scheduler")
    schedule = load_noise_schedule(place(tmp_path))
    assert torch.equal(schedule.betas, torch.linspace(0.001, 0.02, 1000))
    assert schedule.config.prediction_type == "v_prediction"
    assert sampling_schedule(schedule, 10, 0.5).config.prediction_type == "v_prediction"


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_step_of_ddim_from_the_true_prediction_finds_the_clean_latent(tmp_path, prediction):
    DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, prediction_type=prediction).save_pretrained(tmp_path / "scheduler")
    schedule = sampling_schedule(load_noise_schedule(place(tmp_path)), 1, 0.5)
    clean, noise = torch.randn(2, 1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    t = schedule.timesteps[:1]
    told = {"epsilon": noise, "sample": clean, "v_prediction": schedule.get_velocity(clean, noise, t)}[prediction]
    made = schedule.step(told, t[0], schedule.add_noise(clean, noise, t), eta=0.0).prev_sample
    torch.testing.assert_close(made, clean, atol=1e-4, rtol=1e-4)  # alphas are float32


def test_schedulers_that_ddim_cannot_stand_in_for_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"diffusion\.weights = .*part 'scheduler'"):
        load_noise_schedule(place(tmp_path))
    FlowMatchEulerDiscreteScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(InputError, match="FlowMatchEulerDiscreteScheduler without betas"):
        load_noise_schedule(place(tmp_path))
    DDPMScheduler(beta_schedule="sigmoid").save_pretrained(tmp_path / "scheduler")
    with pytest.raises(InputError, match="sigmoid"):
        load_noise_schedule(place(tmp_path))
    DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "flow"}))
    with pytest.raises(InputError, match="prediction_type = 'flow' must be one of epsilon"):
        load_noise_schedule(place(tmp_path))


def test_a_damaged_file_is_an_input_error(sd15, tmp_path):
    for part, kind in (("unet", UNet2DConditionModel), ("image_encoder", CLIPVisionModelWithProjection)):
        copy = shutil.copytree(sd15 / part, tmp_path / part)
        file = next(copy.glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(InputError, match=f"part '{part}' is not a {kind.__name__}"):
            load_image_encoder(place(tmp_path, part)) if part == "image_encoder" else load_part(kind, place(tmp_path, part))

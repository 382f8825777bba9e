from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from dpscale.config.schema import Config, DiffusionConfig
from dpscale.data.types import InputError
from dpscale.diffusion.delta import load_delta, read_delta, save_delta, saved_name
from dpscale.diffusion.denoiser import PoseDenoiser
from dpscale.diffusion.untrained import untrained_model
from dpscale.finetune.lora import adapted, adapted_layers
from dpscale.finetune.trainable import trainable_denoiser
from tests.small_performer import small_model
from tests.unit.diffusion.models import CHANNELS, LATENT, random_conditions
from tests.unit.finetune.test_trainable import expected_temporal

DOCUMENT = (Path(__file__).parents[3] / "docs" / "export.md").read_text()


def predict(denoiser: PoseDenoiser) -> torch.Tensor:
    noisy = torch.randn(1, CHANNELS, 3, LATENT, LATENT, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return denoiser(noisy, torch.tensor([300]), random_conditions(1, 3))


def expected_layers() -> set[str]:
    """Of the temporal tensors of the small model, the weights of every matrix and convolution of the UNet, by name."""
    kinds = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "net.0.proj", "net.2", "conv1.2", "conv2.3", "conv3.3", "conv4.3")
    return {name.removesuffix(".weight") for name in expected_temporal() if name.removesuffix(".weight").endswith(kinds) and name.startswith("unet.")}


def learn(denoiser: PoseDenoiser) -> None:
    """Moves everything that trains, adapters of every layer among it, by random numbers."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable_denoiser(denoiser, "temporal").parameters.values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def test_exactly_the_matrices_and_convolutions_of_temporal_layers_have_adapters():
    denoiser = small_model().denoiser
    assert set(adapted_layers(denoiser)) == expected_layers()
    with adapted(denoiser, 2, seed=0):
        names = set(trainable_denoiser(denoiser, "temporal").parameters)
        shapes = {name: p.shape for name, p in denoiser.named_parameters()}
    factors = {f"{layer}.lora_{factor}.default.weight" for layer in expected_layers() for factor in "AB"}
    assert names == factors | {name for name in expected_temporal() if name.startswith("pose_encoder.")} | {"unet.conv_in.weight"}
    assert {shapes[name][0 if "lora_A" in name else 1] for name in factors} == {2}


def test_before_training_the_output_is_the_bases_and_follows_b():
    denoiser = small_model().denoiser
    base = predict(denoiser)
    with adapted(denoiser, 4, seed=0):
        # What is added is exactly zero; but matrix products of MKL may round otherwise from call to call of other code (seen on one Xeon: 7e-7).
        torch.testing.assert_close(predict(denoiser), base, rtol=1e-5, atol=1e-5)
        for name, parameter in denoiser.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.05)
        assert not torch.allclose(predict(denoiser), base, atol=1e-3)
    assert torch.equal(predict(denoiser), base)


def spoil_and_stop(denoiser: PoseDenoiser) -> None:
    with adapted(denoiser, 4, seed=0):
        for name, parameter in denoiser.named_parameters():
            if "lora_" in name:
                torch.nn.init.ones_(parameter)
        raise RuntimeError("stop")


def test_the_base_is_as_it_was_also_after_an_error():
    denoiser = small_model().denoiser
    denoiser.pose_encoder.requires_grad_(False)
    modules, attributes = dict(denoiser.named_modules()), set(vars(denoiser))
    before = {name: (p, p.detach().clone(), p.requires_grad) for name, p in denoiser.named_parameters()}
    with pytest.raises(RuntimeError, match="stop"):
        spoil_and_stop(denoiser)
    after = dict(denoiser.named_modules())
    assert after.keys() == modules.keys()
    assert all(after[name] is module for name, module in modules.items())
    assert set(vars(denoiser)) == attributes
    now = dict(denoiser.named_parameters())
    assert now.keys() == before.keys()
    assert all(now[name] is p and torch.equal(p, value) and p.requires_grad == flag for name, (p, value, flag) in before.items())


def factors(seed: int) -> dict[str, torch.Tensor]:
    denoiser = small_model().denoiser
    with adapted(denoiser, 2, seed):
        return {name: p.detach().clone() for name, p in denoiser.named_parameters() if "lora_A" in name}


def test_the_seed_alone_decides_the_adapters_and_no_other_random_number_is_drawn():
    torch.manual_seed(1)
    one = factors(3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    denoiser = small_model().denoiser
    torch.set_rng_state(state)
    with adapted(denoiser, 2, 3):
        assert torch.equal(torch.get_rng_state(), state)
    same, other = factors(3), factors(4)
    assert all(torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name]) for name in one)


def test_a_saved_adapter_is_small_and_becomes_part_of_the_weights(tmp_path: Path):
    denoiser, file, whole = small_model().denoiser, tmp_path / "low.safetensors", tmp_path / "whole.safetensors"
    base = {name: t.clone() for name, t in denoiser.state_dict().items()}
    save_delta(whole, denoiser, sorted(expected_temporal()))
    with adapted(denoiser, 2, seed=0):
        names = list(trainable_denoiser(denoiser, "temporal").parameters)
        pristine = {name: denoiser.get_parameter(name).detach().clone() for name in ("unet.conv_in.weight", *names)}
        learn(denoiser)
        with_adapters = predict(denoiser)
        save_delta(file, denoiser, names)
        with torch.no_grad():
            for name, value in pristine.items():
                denoiser.get_parameter(name).copy_(value)
    assert set(load_file(file)) == {saved_name(name) for name in names}
    assert not any(".default." in name for name in load_file(file))
    assert file.stat().st_size < 0.6 * whole.stat().st_size  # the smallest model's pose encoder is a good part of it
    assert not torch.allclose(predict(denoiser), with_adapters, atol=1e-2)
    load_delta(file, denoiser)
    torch.testing.assert_close(predict(denoiser), with_adapters, rtol=1e-4, atol=1e-4)
    changed = {name for name, t in denoiser.state_dict().items() if not torch.equal(t, base[name])}
    assert changed == read_delta(file).merged(base).keys()
    assert {f"{layer}.weight" for layer in expected_layers()} < changed


@pytest.mark.parametrize("spoil", ["half", "rank", "layer", "shape"])
def test_adapters_that_do_not_fit_change_nothing(tmp_path: Path, spoil: str):
    denoiser, layer = small_model().denoiser, "unet.mid_block.temp_convs.0.conv1.2"
    shape = denoiser.get_parameter(f"{layer}.weight").shape
    a, b = torch.ones(2, *shape[1:]), torch.ones(shape[0], 2, 1, 1, 1)
    tensors = {"pose_encoder.spatial.iuv.conv_out.bias": torch.ones(8), f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}
    if spoil == "half":
        del tensors[f"{layer}.lora_B.weight"]
    elif spoil == "rank":
        tensors[f"{layer}.lora_A.weight"] = torch.ones(3, *shape[1:])
    elif spoil == "shape":
        tensors[f"{layer}.lora_B.weight"] = torch.ones(shape[0] + 1, 2, 1, 1, 1)
    else:
        tensors = {name.replace("temp_convs.0", "temp_convs.7"): t for name, t in tensors.items()}
    save_file(tensors, tmp_path / "bad.safetensors")
    before = {name: t.clone() for name, t in denoiser.state_dict().items()}
    with pytest.raises(InputError, match=r"bad\.safetensors does not fit this model: first wrong tensor .unet.*trained on another"):
        load_delta(tmp_path / "bad.safetensors", denoiser)
    assert all(torch.equal(t, before[name]) for name, t in denoiser.state_dict().items())


def test_adapters_do_not_go_with_a_denoiser_that_trains_whole():
    with pytest.raises(ValidationError, match=r"finetune\.lora_rank adapts the temporal layers alone.*finetune\.trainable = temporal"):
        Config.model_validate({"finetune": {"lora_rank": 4, "trainable": "all"}})


@pytest.mark.parametrize("preset", ["sd21", "sd15"])
def test_the_document_counts_the_deltas(preset: str):
    with torch.device("meta"):
        denoiser = untrained_model(DiffusionConfig(preset=preset, weights=None)).denoiser
    cells = []
    for rank in (4, 16, 64, None):
        with adapted(denoiser, rank, seed=0):
            cells.append(sum(4 * p.numel() for p in trainable_denoiser(denoiser, "temporal").parameters.values()) / 2**20)
    assert f"| `{preset}` | {' | '.join(f'{mib:.0f}' for mib in cells)} |" in DOCUMENT

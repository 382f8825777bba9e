"""Performers' weights in and out of one resident base: nothing of one is left in the next, nor in the base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dpscale.data.types import InputError
from dpscale.diffusion.delta import FINETUNED, load_delta, save_delta
from dpscale.diffusion.mapped_weights import map_weights
from dpscale.diffusion.weights import PoseVideoModel
from dpscale.joint.delta_cache import DeltaCache
from dpscale.joint.performers import PerformerWeights
from tests.small_performer import small_model
from tests.unit.diffusion.models import CHANNELS, LATENT, random_conditions
from tests.unit.joint.finetuned import write_finetuned

RANKS = pytest.mark.parametrize("lora_rank", [None, 2], ids=["whole", "low-rank"])


def made(model: PoseVideoModel) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction and a picture."""
    device = next(model.denoiser.parameters()).device
    generator = torch.Generator().manual_seed(1)
    noisy, latents = torch.randn(1, CHANNELS, 3, LATENT, LATENT, generator=generator), torch.randn(2, CHANNELS, LATENT, LATENT, generator=generator)
    conditions = random_conditions(1, 3)
    maps = {kind: m.to(device) for kind, m in conditions.pose_maps.items()}
    told = type(conditions)(maps, conditions.image_embedding.to(device), conditions.reference_latents.to(device))
    with torch.no_grad():
        predicted = model.denoiser(noisy.to(device), torch.tensor([300], device=device), told)
        return predicted.cpu(), model.autoencoder.decode(latents.to(device)).cpu()


def equal(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def alone(finetuned: Path, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """By a model that never held anybody else's weights, loaded for good."""
    model = small_model()
    for name, module in zip(FINETUNED, (model.denoiser, model.autoencoder), strict=True):
        load_delta(finetuned / name, module.to(device))
    return made(model)


@RANKS
@pytest.mark.parametrize("is_mapped", [False, True], ids=["own", "mapped"])
def test_a_performer_leaves_no_trace_in_the_next_nor_in_the_base(tmp_path: Path, lora_rank: int | None, is_mapped: bool) -> None:
    model = small_model()
    base = made(model)
    ann, ben = (write_finetuned(tmp_path / name, model, seed, rank) for name, seed, rank in (("ann", 1, lora_rank), ("ben", 2, None)))
    if is_mapped:
        map_weights((model.denoiser, model.autoencoder, model.image_encoder), tmp_path / "node")
    weights = PerformerWeights(model, DeltaCache(2**30))
    for finetuned in (ann, ben, ann):
        weights.use(finetuned)
        assert equal(made(model), alone(finetuned))
    assert not equal(alone(ann), alone(ben))
    weights.restore()
    assert equal(made(model), base)


def test_in_host_memory_nothing_is_copied(tmp_path: Path) -> None:
    model, cache = small_model(), DeltaCache(2**30)
    ann, ben = (write_finetuned(tmp_path / name, model, seed) for seed, name in enumerate(("ann", "ben")))
    own = model.denoiser.pose_encoder.spatial["iuv"].conv_in.weight
    base, weights = own.data_ptr(), PerformerWeights(model, cache)
    places = []
    for finetuned in (ann, ben, ann):
        weights.use(finetuned)
        places.append(own.data_ptr())
    (denoiser, _) = cache.take(ann)
    assert places[0] == places[2] == denoiser.tensors["pose_encoder.spatial.iuv.conv_in.weight"].data_ptr()
    weights.restore()
    assert own.data_ptr() == base
    assert len({base, *places}) == 3


def test_a_finetuning_that_was_done_again_is_read_again(tmp_path: Path) -> None:
    model = small_model()
    weights = PerformerWeights(model, DeltaCache(2**30))
    weights.use(write_finetuned(tmp_path / "ann", model, 1))
    weights.restore()
    again = write_finetuned(tmp_path / "ann", model, 2)
    weights.use(again)
    assert equal(made(model), alone(again))


def test_weights_of_another_base_are_refused_and_the_next_performer_still_works(tmp_path: Path) -> None:
    model = small_model()
    base = made(model)
    good, bad = (write_finetuned(tmp_path / name, model, seed) for seed, name in enumerate(("good", "bad")))
    save_delta(bad / "decoder.safetensors", torch.nn.Linear(2, 2), ["weight"])
    weights = PerformerWeights(model)
    for finetuned in (good, bad, good):
        if finetuned == bad:
            with pytest.raises(InputError, match=r"decoder\.safetensors does not fit .* trained on another base"):
                weights.use(bad)
            assert equal(made(model), base)
        else:
            weights.use(finetuned)
            assert equal(made(model), alone(finetuned))


def test_a_performer_without_finetuning_is_named(tmp_path: Path) -> None:
    weights = PerformerWeights(small_model())
    with pytest.raises(InputError, match="dan is not there or unfinished"):
        weights.use(tmp_path / "dan")
    write_finetuned(tmp_path / "dan", small_model(), 0)
    (tmp_path / "dan" / "decoder.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match=r"decoder\.safetensors cannot be read .* finetune the performer again"):
        weights.use(tmp_path / "dan")


@pytest.mark.requires_gpu
@RANKS
def test_on_a_gpu_the_same_holds(tmp_path: Path, lora_rank: int | None) -> None:
    model = small_model()
    ann, ben = (write_finetuned(tmp_path / name, model, seed, lora_rank) for seed, name in enumerate(("ann", "ben")))
    map_weights((model.denoiser, model.autoencoder), tmp_path / "node")
    weights = PerformerWeights(model, DeltaCache(2**30, pin=True))
    model.denoiser.cuda()
    model.autoencoder.cuda()
    base = made(model)
    for finetuned in (ann, ben, ann):
        weights.use(finetuned)
        assert equal(made(model), alone(finetuned, "cuda"))
    weights.restore()
    assert equal(made(model), base)

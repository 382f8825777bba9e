from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from dpscale.finetune.memory import RECOMPUTED, autocast, recomputed
from tests.small_performer import small_model
from tests.unit.diffusion.models import random_conditions


def kept_bytes(loss_of, module: nn.Module, enabled: bool) -> tuple[int, list[torch.Tensor]]:
    """Bytes that forward keeps for backward, without the parameters, and the gradients."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    module.zero_grad(set_to_none=True)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with recomputed(module, enabled), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of()
        counted = sum(kept.values())
        loss.backward()
    return counted, [p.grad.clone() for p in module.parameters() if p.grad is not None]


def denoiser_case():
    torch.manual_seed(0)
    model = small_model()
    noisy, t = torch.randn(1, model.denoiser.latent_channels, 4, 4, 4), torch.tensor([500])
    return model.denoiser, lambda: model.denoiser(noisy, t, random_conditions(1, 4)).square().mean()


def vae_case():
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8
    ).eval()
    latents = torch.randn(2, 4, 8, 8)
    return vae, lambda: vae.decode(latents).sample.square().mean()


@pytest.mark.parametrize("case", [denoiser_case, vae_case])
def test_recomputing_keeps_less_and_gives_the_same_gradients_to_the_bit(case):
    module, loss = case()
    everything, expected = kept_bytes(loss, module, enabled=False)
    less, found = kept_bytes(loss, module, enabled=True)
    assert less < 0.6 * everything
    assert len(found) == len(expected) > 0
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def _stop_inside(module: nn.Module, layers: list[nn.Module]) -> None:
    with recomputed(module, True):
        assert all("forward" in vars(layer) for layer in layers)
        raise RuntimeError("stop")


def test_layers_are_as_before_also_after_an_error():
    module, _ = denoiser_case()
    layers = [m for m in module.modules() if isinstance(m, RECOMPUTED)]
    with pytest.raises(RuntimeError, match="stop"):
        _stop_inside(module, layers)
    assert layers
    assert not any("forward" in vars(layer) for layer in layers)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_of_products_and_of_weights(precision, dtype):
    layer = nn.Linear(3, 2)
    with autocast(precision, "cpu"):
        out = layer(torch.ones(1, 3))
    out.float().sum().backward()
    assert out.dtype == dtype
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32

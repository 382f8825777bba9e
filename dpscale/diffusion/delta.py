"""What one performer's training changed of a base model: named tensors in a safetensors file.

A tensor is saved whole or, of a layer X with a low-rank adapter, as its two factors X.lora_A.weight and X.lora_B.weight: X.weight is then the
base's plus B A. The names say which."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dpscale.data.checkpoint import write_atomically
from dpscale.data.types import InputError
from dpscale.diffusion.aligned import copied

FINETUNED = ("denoiser.safetensors", "decoder.safetensors")
"""What a finetuned performer's folder holds besides its marker: deltas of the denoiser and of the autoencoder."""
_FACTOR = re.compile(r"\.lora_([AB])\.(?:\w+\.)?weight$")
"""End of a factor's name; peft's module has the adapter's name in it, a saved one has not."""


def is_factor(name: str) -> bool:
    """Whether a tensor of this name is one of the two factors of a low-rank adapter."""
    return _FACTOR.search(name) is not None


def saved_name(name: str) -> str:
    """Name in the file of a module's tensor."""
    return _FACTOR.sub(r".lora_\1.weight", name)


def save_delta(path: Path, module: nn.Module, names: list[str]) -> None:
    """Writes the named tensors of a module, atomically: only what a performer's training changed."""
    state = module.state_dict()
    write_atomically(path, lambda p: save_file({saved_name(name): state[name].detach().contiguous().cpu() for name in names}, p))


@dataclass(frozen=True)
class Delta:
    """The tensors of one file, in host memory of their own."""

    path: Path
    tensors: Mapping[str, Tensor]

    def merged(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What tensors of the base become, by name: the delta's own where it holds them whole, new ones where it holds factors.

        Raises InputError where it does not fit the base."""
        values = {name: _value(name, self.tensors, base) for name in dict.fromkeys(map(_changed, self.tensors))}
        fitting = {name: value for name, value in values.items() if value is not None}
        if len(fitting) < len(values):
            wrong = next(name for name in values if name not in fitting)
            raise InputError(f"{self.path} does not fit this model: first wrong tensor {wrong!r}; it was trained on another base")
        return fitting


def read_delta(path: Path, pin: bool = False) -> Delta:
    """Reads what `save_delta` wrote, into pinned memory if asked. Raises InputError where there is no such file."""
    try:
        given = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}): finetune the performer again") from error
    return Delta(path, dict(zip(given, copied(list(given.values()), pin), strict=True)))


def load_delta(path: Path, module: nn.Module) -> None:
    """Loads what `save_delta` wrote into the base that it was trained on, once: adapters become part of the weights.

    Raises InputError on tensors that do not fit, before any is changed."""
    module.load_state_dict(read_delta(path).merged(module.state_dict()), strict=False)


def _changed(name: str) -> str:
    return _FACTOR.sub(".weight", name)


def _value(name: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Tensor | None:
    """What the base's tensor becomes; None where the delta does not fit."""
    base, whole = own.get(name), given.get(name)
    a, b = (given.get(f"{name.removesuffix('.weight')}.lora_{factor}.weight") for factor in "AB")
    if base is not None and whole is not None and whole.shape == base.shape:
        return whole.to(base.dtype)
    if base is None or a is None or b is None or (len(b), *a.shape[1:]) != base.shape or len(a) != b.shape[1]:
        return None
    return base + (b.flatten(1) @ a.flatten(1)).view(base.shape).to(base)

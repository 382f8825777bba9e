"""What one performer's training changed of a base model: named tensors in a safetensors file.

A tensor is saved whole or, of a layer X with a low-rank adapter, as its two factors X.lora_A.weight and X.lora_B.weight: X.weight is then the
base's plus B A. The names say which."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dpscale.data.checkpoint import write_atomically
from dpscale.data.types import InputError

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


def changed_tensors(path: Path) -> set[str]:
    """Names of the base's tensors that the delta in a file changes."""
    with safe_open(path, "pt") as delta:
        return {_changed(name) for name in delta.keys()}  # noqa: SIM118


def save_delta(path: Path, module: nn.Module, names: list[str]) -> None:
    """Writes the named tensors of a module, atomically: only what a performer's training changed."""
    state = module.state_dict()
    write_atomically(path, lambda p: save_file({saved_name(name): state[name].detach().contiguous().cpu() for name in names}, p))


def load_delta(path: Path, module: nn.Module) -> None:
    """Loads what `save_delta` wrote into the base that it was trained on, once: adapters become part of the weights.

    Raises InputError on tensors that do not fit, before any is changed."""
    given, own = load_file(path), module.state_dict()
    state = {name: _value(name, given, own) for name in dict.fromkeys(map(_changed, given))}
    wrong = [name for name, value in state.items() if value is None]
    if wrong:
        raise InputError(f"{path} does not fit this model: first wrong tensor {wrong[0]!r}; it was trained on another base")
    module.load_state_dict(state, strict=False)


def _changed(name: str) -> str:
    return _FACTOR.sub(".weight", name)


def _value(name: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Tensor | None:
    """What the base's tensor becomes; None where the delta does not fit."""
    base, whole = own.get(name), given.get(name)
    a, b = (given.get(f"{name.removesuffix('.weight')}.lora_{factor}.weight") for factor in "AB")
    if base is not None and whole is not None and whole.shape == base.shape:
        return whole
    if base is None or a is None or b is None or (len(b), *a.shape[1:]) != base.shape or len(a) != b.shape[1]:
        return None
    return base + (b.flatten(1) @ a.flatten(1)).view(base.shape).to(base)

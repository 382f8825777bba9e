"""What one performer's training changed of a base model: named tensors in a safetensors file."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from dpscale.data.checkpoint import write_atomically
from dpscale.data.types import InputError


def save_delta(path: Path, module: nn.Module, names: list[str]) -> None:
    """Writes the named tensors of a module, atomically: only what a performer's training changed."""
    state = module.state_dict()
    write_atomically(path, lambda p: save_file({name: state[name].detach().contiguous().cpu() for name in names}, p))


def load_delta(path: Path, module: nn.Module) -> None:
    """Loads tensors written by `save_delta` over a module's own. Raises InputError on tensors that do not fit."""
    state, own = load_file(path), module.state_dict()
    wrong = [name for name, tensor in state.items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        raise InputError(f"{path} does not fit this model: first wrong tensor {wrong[0]!r}; it was trained on another base")
    module.load_state_dict(state, strict=False)

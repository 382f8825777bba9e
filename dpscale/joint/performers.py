"""One resident base model that serves any performer: what finetuning changed is put in place, and taken out again without a trace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dpscale.diffusion.weights import PoseVideoModel
from dpscale.joint.delta_cache import DeltaCache, version_of


class PerformerWeights:
    """In host memory the model's parameters are rebound, to a performer's tensors or back to the base's: nothing is copied, and many
    performers may be there at once. On a GPU there is one model, and what differs is copied into it."""

    def __init__(self, model: PoseVideoModel, deltas: DeltaCache | None = None) -> None:
        """`model` holds the base's weights. Made before the model is moved to a GPU this takes no memory: the base stays in the host's.

        Without `deltas` those of the performer in use alone are kept."""
        self._modules = (model.denoiser, model.autoencoder)
        self._base = tuple({name: t.detach().cpu() for name, t in _tensors(module).items()} for module in self._modules)
        self._changed: list[set[str]] = [set() for _ in self._modules]
        self._deltas = DeltaCache(0) if deltas is None else deltas
        self._current: tuple | None = None

    def use(self, finetuned: Path) -> None:
        """Puts the weights of a finished finetuning folder in place; those of the performer before leave no trace.

        Raises InputError where they do not fit; the model then holds the base's or the weights of the performer before."""
        version = version_of(finetuned)
        if version == self._current:
            return
        if self._is_on_host():
            self.restore()  # a performer's tensors that no parameter is bound to are the cache's to drop
        values = [delta.merged(base) for delta, base in zip(self._deltas.take(finetuned), self._base, strict=True)]
        self._put(values)
        self._current = version

    def restore(self) -> None:
        """The base as it was."""
        self._current = None
        self._put([{} for _ in self._modules])

    @torch.no_grad()
    def _put(self, values: list[dict[str, Tensor]]) -> None:
        """`values`, and the base's in place of what was changed before and is none of them."""
        for module, base, changed, new in zip(self._modules, self._base, self._changed, values, strict=True):
            own = _tensors(module)
            for name, value in ({name: base[name] for name in changed} | new).items():
                _set(own[name], value)
            changed.clear()
            changed.update(new)

    def _is_on_host(self) -> bool:
        return all(parameter.device.type == "cpu" for module in self._modules for parameter in module.parameters())


def _tensors(module: nn.Module) -> Mapping[str, Tensor]:
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


def _set(own: Tensor, value: Tensor) -> None:
    if own.device.type == "cpu":
        own.data = value
    else:
        own.copy_(value, non_blocking=value.is_pinned())

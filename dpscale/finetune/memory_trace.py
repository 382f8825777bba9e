"""How much memory a training step takes, counted on tensors without storage: no GPU and no weights are needed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dpscale.finetune.trainable import TrainablePart, unfrozen


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one step beside the weights: what forward and backward allocate."""

    activations: int
    """Kept from forward for backward."""
    peak: int
    """Most at once, gradients included."""
    peak_without_gradients: int
    """The same where every gradient leaves the device as soon as it is complete."""


def step_memory(part: TrainablePart, loss: Callable[[], Tensor]) -> StepMemory:
    """Of `loss()` and its backward, in which `part` trains. Works on real tensors and under FakeTensorMode."""
    tensors = (*part.module.parameters(), *part.module.buffers())
    with unfrozen(part), _LiveStorages(tensors) as live, live.gradients_of(part):
        value = loss()
        activations = live.now
        value.backward()
    return StepMemory(activations, live.peak, live.peak_without_gradients)


class _LiveStorages(TorchDispatchMode):
    """Counts the storages that operations make inside, for as long as they live."""

    def __init__(self, known: tuple[Tensor, ...]) -> None:
        """`known`: tensors that were there before; views of them are no new memory."""
        super().__init__()
        self.now = self.peak = self.peak_without_gradients = self.gradients = 0
        self._known = [tensor.untyped_storage() for tensor in known]
        self._bytes = {storage._cdata: 0 for storage in self._known}
        self._is_gradient: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._bytes:
            return
        self._bytes[key] = storage.nbytes()
        weakref.finalize(storage, self._free, key)
        self.now += self._bytes[key]
        self.peak = max(self.peak, self.now)
        self.peak_without_gradients = max(self.peak_without_gradients, self.now - self.gradients)

    def _free(self, key: int) -> None:
        size = self._bytes.pop(key)
        self.now -= size
        if key in self._is_gradient:
            self._is_gradient.remove(key)
            self.gradients -= size

    @contextmanager
    def gradients_of(self, part: TrainablePart) -> Iterator[None]:
        """Inside, gradients count as such from the moment at which they are complete."""
        hooks = [p.register_post_accumulate_grad_hook(self._complete) for p in part.parameters.values()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _complete(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        key = parameter.grad.untyped_storage()._cdata
        if key not in self._is_gradient and key in self._bytes:
            self._is_gradient.add(key)
            self.gradients += self._bytes[key]

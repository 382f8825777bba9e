"""Several tensors in one piece of memory, each aligned as torch's own allocator aligns: over memory that lies otherwise sums may differ in
their last bits."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes."""


def offsets(tensors: Sequence[Tensor]) -> list[int]:
    """Where tensors lie in their piece of memory, in bytes, and where it ends."""
    places = [0]
    for tensor in tensors:
        places.append(places[-1] + -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT)
    return places


def views(memory: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of the shapes and types of `tensors` in a piece of memory (uint8), where `offsets` says."""
    return [memory[begin : begin + t.nbytes].view(t.dtype).view(t.shape) for t, begin in zip(tensors, offsets(tensors)[:-1], strict=True)]


def copied(tensors: Sequence[Tensor], pin: bool = False) -> list[Tensor]:
    """Equal ones in a piece of host memory of their own, which a GPU can read while others work where it is pinned."""
    num_bytes = max(offsets(tensors)[-1], ALIGNMENT)
    if pin:
        memory = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
    else:  # from the system, not from the heap: it goes back as a whole, and nothing else lies between such pieces
        memory = torch.frombuffer(mmap.mmap(-1, num_bytes), dtype=torch.uint8)
    found = views(memory, tensors)
    for own, tensor in zip(found, tensors, strict=True):
        own.copy_(tensor)
    return found

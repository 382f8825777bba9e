"""Several tensors in one piece of memory, each aligned as torch's own allocator aligns: over memory that lies otherwise sums may differ in
their last bits."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

ALIGNMENT = 64
"""Bytes."""


def offsets(tensors: Sequence[Tensor]) -> list[int]:
    """Where tensors lie in their piece of memory, in bytes, and where it ends."""
    places = [0]
    for tensor in tensors:
        places.append(places[-1] + -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT)
    return places


def views(memory: UInt8[Tensor, " N"], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of the shapes and types of `tensors` in a piece of memory, where `offsets` says."""
    return [memory[begin : begin + t.nbytes].view(t.dtype).view(t.shape) for t, begin in zip(tensors, offsets(tensors)[:-1], strict=True)]


def copied(tensors: Sequence[Tensor], pin: bool = False) -> list[Tensor]:
    """Equal ones in a piece of host memory of their own, which a GPU can read while others work where it is pinned."""
    found = views(_memory(max(offsets(tensors)[-1], ALIGNMENT), pin), tensors)
    for own, tensor in zip(found, tensors, strict=True):
        own.copy_(tensor)
    return found


def _memory(num_bytes: int, pin: bool) -> UInt8[Tensor, " N"]:
    """Not of the heap: it goes back to the system as a whole, and nothing else comes to lie between such pieces."""
    if pin:
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
    return torch.frombuffer(mmap.mmap(-1, num_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=torch.uint8)

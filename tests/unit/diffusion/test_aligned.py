from __future__ import annotations

import torch

from dpscale.diffusion.aligned import ALIGNMENT, copied, offsets


def odd_tensors() -> list[torch.Tensor]:
    """Of several types and shapes, one without dimensions, one without elements; sizes that no alignment divides."""
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(3, 5, generator=g), torch.tensor(7), torch.randn(17, generator=g).half(), torch.empty(0, 4),
        torch.randn(33, generator=g).bfloat16(), torch.randn(2, 3, 4, generator=g).transpose(0, 2),
    ]  # fmt: skip


def test_copies_are_equal_aligned_and_in_one_piece() -> None:
    tensors = odd_tensors()
    found = copied(tensors)
    for own, tensor in zip(found, tensors, strict=True):
        assert own.dtype == tensor.dtype
        assert torch.equal(own, tensor)
        assert own.is_contiguous()
    filled = [own for own in found if own.numel() > 0]
    assert all(own.data_ptr() % ALIGNMENT == 0 for own in filled)
    assert [own.data_ptr() - filled[0].data_ptr() for own in filled] == [0, 64, 128, 192, 320]
    assert offsets(tensors)[-1] == 320 + 128
    found[0].add_(1)
    assert torch.equal(found[1], tensors[1]), "they do not overlap"


def test_nothing_has_no_copies() -> None:
    assert copied([]) == []

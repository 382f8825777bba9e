from __future__ import annotations

import torch

from dpscale.field.canonical import BackgroundImage, CanonicalImage
from tests.unit.field.small_field import SMALL


def test_colours_lie_between_0_and_1() -> None:
    canonical = CanonicalImage(SMALL, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(canonical.network[-1].weight, std=100)
    colours = canonical(torch.rand(20, 2))
    assert colours.shape == (20, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1


def test_the_canonical_image_reaches_beyond_the_frame() -> None:
    """CoDeF: (x + 0.3) / 1.6, so that -0.3 .. 1.3 is inside; what lies further out takes the colour of the border."""
    canonical = CanonicalImage(SMALL, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(canonical.grid.table)
    inside = canonical(torch.tensor([[-0.3, 0.5], [-0.1, 0.5], [0.5, 0.5], [1.3, 0.5]]))
    assert len({tuple(row) for row in inside.tolist()}) == 4
    torch.testing.assert_close(canonical(torch.tensor([[-5.0, 0.5]])), inside[:1])


def test_the_background_is_as_large_as_the_frame() -> None:
    background = BackgroundImage(SMALL, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(background.grid.table)
    ends = background(torch.tensor([[0.0, 0.5], [1.0, 0.5], [-0.2, 0.5], [1.2, 0.5]]))
    torch.testing.assert_close(ends[2:], ends[:2])
    torch.testing.assert_close(ends[:1], torch.sigmoid(background.network(background.grid(torch.tensor([[0.0, 0.5]])))))
    assert not torch.equal(ends[0], ends[1])

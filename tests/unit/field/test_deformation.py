from __future__ import annotations

import torch

from dpscale.field.deformation import OUTPUT_SCALE, Deformation
from tests.unit.field.small_field import LAYERED, SMALL


def test_displacements_start_at_zero() -> None:
    deformation = Deformation(SMALL, torch.Generator().manual_seed(0))
    assert torch.equal(deformation(torch.rand(7, 3)), torch.zeros(7, 1, 2))


def test_the_network_sees_grid_features_and_raw_coordinates() -> None:
    deformation = Deformation(SMALL, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(deformation.network[-1].weight)
    points = torch.rand(7, 3, requires_grad=True)
    expected = deformation.network(torch.cat([deformation.grid(points), points], 1)) * OUTPUT_SCALE
    torch.testing.assert_close(deformation(points), expected[:, None])
    deformation(points).sum().backward()
    assert (points.grad[:, 2] != 0).any(), "video time must matter"


def test_each_canonical_image_has_its_own_displacement() -> None:
    deformation = Deformation(LAYERED, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(deformation.network[-1].weight)
    points = torch.rand(7, 3)
    flat = deformation.network(torch.cat([deformation.grid(points), points], 1)) * OUTPUT_SCALE
    torch.testing.assert_close(deformation(points), torch.stack([flat[:, :2], flat[:, 2:]], 1))

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpscale.field.video_field import VideoField, to_uint8
from tests.unit.field.small_field import GRID, SMALL, small_field


def test_points_are_pixel_centres_and_frames_over_their_number() -> None:
    field = small_field(num_frames=4, height=8, width=12)
    pixel = (2 * 8 + 3) * 12 + 5
    torch.testing.assert_close(field.points(torch.tensor([pixel])), torch.tensor([[5.5 / 12, 3.5 / 8, 2 / 4]]))
    frame, row, column = field.frame_row_column(torch.tensor([pixel]))
    assert (int(frame), int(row), int(column)) == (2, 3, 5)


def test_render_is_the_field_at_every_pixel() -> None:
    field = small_field()
    torch.nn.init.normal_(field.canonical.grid.table)
    torch.nn.init.normal_(field.deformation.network[-1].weight, std=0.1)
    everything = field(field.points(torch.arange(3 * 8 * 12))).reshape(3, 8, 12, 3)
    np.testing.assert_array_equal(field.render_all(), to_uint8(everything.detach()).numpy())
    (last,) = field.render([2])
    np.testing.assert_array_equal(last, field.render_all()[2])


def test_render_streams() -> None:
    frames = small_field(num_frames=1000).render()
    assert next(frames).shape == (8, 12, 3)
    assert next(frames).dtype == np.uint8


def test_chunks_do_not_change_the_picture() -> None:
    field = small_field()
    torch.nn.init.normal_(field.canonical.grid.table)
    whole, small = np.stack(list(field.render(chunk=1000))), np.stack(list(field.render(chunk=7)))
    # One level of grey: the last bit of a sum may depend on the size of the batch.
    assert np.abs(whole.astype(int) - small).max() <= 1


def test_parameters_follow_from_the_generator() -> None:
    one, two = small_field().state_dict(), small_field().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("kind", "networks"), [("fused", "fused"), ("reference", "torch"), ("reference", "fused")])
def test_every_kind_renders_what_it_computes(kind: str, networks: str) -> None:
    """Sums on the lattice are in another order: equal within one level of grey, and nearly everywhere equal."""
    grid = GRID.model_copy(update={"kind": kind})
    config = SMALL.model_copy(update={"deformation_grid": grid, "canonical_grid": grid, "networks": networks})
    field = VideoField(config, 3, 30, 41, torch.Generator().manual_seed(0))
    for part in (field.deformation, field.canonical):
        torch.nn.init.normal_(part.grid.table, generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(field.deformation.network[-1].weight, std=0.1, generator=torch.Generator().manual_seed(2))
    expected = to_uint8(field(field.points(torch.arange(3 * 30 * 41))).detach()).reshape(3, 30, 41, 3).numpy().astype(int)
    difference = np.abs(field.render_all() - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_the_kinds_show_the_same_video() -> None:
    videos = []
    for kind, networks in (("fused", "fused"), ("reference", "torch")):
        grid = GRID.model_copy(update={"kind": kind})
        config = SMALL.model_copy(update={"deformation_grid": grid, "canonical_grid": grid, "networks": networks})
        field = VideoField(config, 2, 20, 30, torch.Generator().manual_seed(0))
        with torch.no_grad():
            field.canonical.grid.table.mul_(1e4)
            field.deformation.grid.table.mul_(1e4)
        torch.nn.init.normal_(field.deformation.network[-1].weight, std=0.1, generator=torch.Generator().manual_seed(2))
        videos.append(field.render_all().astype(int))
    assert videos[0].std() > 5
    assert np.abs(videos[0] - videos[1]).max() <= 1

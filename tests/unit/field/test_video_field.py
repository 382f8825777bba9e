from __future__ import annotations

import numpy as np
import torch

from dpscale.field.video_field import to_uint8
from tests.unit.field.small_field import small_field


def test_points_are_pixel_centres_and_frames_over_their_number() -> None:
    field = small_field(num_frames=4, height=8, width=12)
    pixel = (2 * 8 + 3) * 12 + 5
    torch.testing.assert_close(field.points(torch.tensor([pixel])), torch.tensor([[5.5 / 12, 3.5 / 8, 2 / 4]]))
    frame, row, column = field.frame_row_column(torch.tensor([pixel]))
    assert (int(frame), int(row), int(column)) == (2, 3, 5)


def test_render_is_the_field_at_every_pixel() -> None:
    field = small_field()
    torch.nn.init.normal_(field.canonicals[0].grid.table)
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
    torch.nn.init.normal_(field.canonicals[0].grid.table)
    whole, small = np.stack(list(field.render(chunk=1000))), np.stack(list(field.render(chunk=7)))
    # One level of grey: the last bit of a sum may depend on the size of the batch.
    assert np.abs(whole.astype(int) - small).max() <= 1


def test_parameters_follow_from_the_generator() -> None:
    one, two = small_field().state_dict(), small_field().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dpscale.field.loss import HumanFlow, draw_samples, flow_loss, ivr_loss, reconstruction_loss
from dpscale.field.video_field import VideoField
from tests.unit.field.small_field import small_field

N, H, W = 4, 8, 12
MOVE = torch.tensor([0.05, -0.03])
"""Movement from each frame to the next, in parts of width and height."""


class Translation(nn.Module):
    """The displacement that brings a scene which moves by MOVE a frame back onto its first frame."""

    def __init__(self, table: nn.Parameter) -> None:
        super().__init__()
        self.grid = nn.Module()
        self.grid.table = table

    def forward(self, points: Tensor) -> Tensor:
        return (-points[:, 2:] * N * MOVE)[:, None]


def moving_field() -> VideoField:
    field = small_field(N, H, W)
    field.deformation = Translation(field.deformation.grid.table)
    return field


def everywhere(flow: Tensor) -> HumanFlow:
    return HumanFlow.of(flow, torch.ones(N, H, W, dtype=torch.bool), torch.ones(N, H, W, dtype=torch.bool), background=False)


def test_a_deformation_that_follows_the_flow_has_no_flow_loss() -> None:
    samples = draw_samples(moving_field(), torch.zeros(N, H, W, 3, dtype=torch.uint8), everywhere(MOVE.expand(N, H, W, 2)), 8, 64, torch.Generator())
    # float32: coordinates of order 1, so 1e-6 is a few roundings
    assert float(ivr_loss(moving_field(), samples, 1.0).detached().flow) < 1e-6


def test_the_flow_loss_of_a_still_deformation_is_the_flow() -> None:
    """D = 0 everywhere: the loss is the mean of |F|, by Eq. 7."""
    samples = draw_samples(
        small_field(N, H, W), torch.zeros(N, H, W, 3, dtype=torch.uint8), everywhere(MOVE.expand(N, H, W, 2)), 8, 64, torch.Generator()
    )
    losses = ivr_loss(small_field(N, H, W), samples, 2.0).detached()
    assert float(losses.flow) == pytest.approx(0.04)
    assert float(losses.total) == pytest.approx(float(losses.reconstruction) + 2.0 * 0.04)


def test_samples_of_flow_start_at_valid_pixels_and_end_one_frame_later() -> None:
    valid = torch.zeros(N, H, W, dtype=torch.bool)
    valid[1, 2, 3] = True
    flow = torch.rand(N, H, W, 2)
    samples = draw_samples(
        small_field(N, H, W), torch.zeros(N, H, W, 3, dtype=torch.uint8), HumanFlow.of(flow, valid, valid, False), 8, 5, torch.Generator()
    )
    start = torch.tensor([3.5 / W, 2.5 / H, 1 / N])
    torch.testing.assert_close(samples.flow_from, start.expand(5, 3))
    torch.testing.assert_close(samples.flow_to, (start + torch.cat([flow[1, 2, 3], torch.tensor([1 / N])])).expand(5, 3))


def test_the_last_frame_has_no_flow() -> None:
    assert int(everywhere(torch.zeros(N, H, W, 2)).pixels.max()) < (N - 1) * H * W


def test_background_counts_as_still_where_both_frames_show_it() -> None:
    valid, body = torch.zeros(N, H, W, dtype=torch.bool), torch.zeros(N, H, W, dtype=torch.bool)
    body[:, :, :6], body[1, :, 6] = True, True
    valid[0, 0, 0] = True
    flow = torch.full((N, H, W, 2), 0.5)
    known = HumanFlow.of(flow, valid, body, background=True)
    frame, column = known.pixels // (H * W), known.pixels % W
    assert not ((frame == 0) & (column == 6)).any(), "frame 1 shows the body there"
    assert ((frame == 2) & (column == 6)).sum() == H
    assert known.flow[known.pixels == 0].tolist() == [[0.5, 0.5]]
    assert known.flow[known.pixels != 0].abs().max() == 0


def test_targets_are_read_at_the_points() -> None:
    targets = torch.randint(256, (N, H, W, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    samples = draw_samples(small_field(N, H, W), targets, None, 50, 5, torch.Generator().manual_seed(2))
    column, row, frame = (samples.points * torch.tensor([W, H, N])).round(decimals=3).long().T
    torch.testing.assert_close(samples.targets, targets[frame, row, column] / 255)
    assert len(samples.flow) == 0


def test_equal_generators_draw_equal_samples() -> None:
    flow = everywhere(torch.rand(N, H, W, 2))
    one, two = (
        draw_samples(small_field(N, H, W), torch.zeros(N, H, W, 3, dtype=torch.uint8), flow, 9, 5, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(one.points, two.points)
    assert torch.equal(one.flow_to, two.flow_to)


def test_losses_are_means_of_absolute_differences() -> None:
    assert float(reconstruction_loss(torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[0.3, 0.5, 0.4]]))) == pytest.approx(0.3)
    here, there = torch.tensor([[[0.3, 0.0]]]), torch.tensor([[[0.1, 0.0]]])
    assert float(flow_loss(here, there, torch.tensor([[0.1, 0.1]]), torch.ones(1, 1))) == pytest.approx(0.1)
    assert float(flow_loss(torch.zeros(0, 1, 2), torch.zeros(0, 1, 2), torch.zeros(0, 2), torch.ones(0, 1))) == 0

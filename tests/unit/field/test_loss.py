from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dpscale.config.field import NeighbourLossesConfig
from dpscale.field.loss import HumanFlow, draw_samples, flow_loss, gradient_loss, ivr_loss, reconstruction_loss, total_variation
from dpscale.field.video_field import VideoField
from tests.unit.field.small_field import layered_field, small_field

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


ALL = NeighbourLossesConfig(samples=6, gradient_weight=0.7, space_weight=0.3, time_weight=0.5)


def random_samples(field: VideoField, seed: int = 0, num_neighbours: int = 6):
    targets = torch.randint(256, (N, H, W, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    flow = torch.rand(N, H, W, 2, generator=torch.Generator().manual_seed(seed + 1)) * 0.1
    return draw_samples(field, targets, everywhere(flow), 20, 10, torch.Generator().manual_seed(seed + 2), num_neighbours), targets


def test_neighbours_are_right_below_and_later() -> None:
    samples, targets = random_samples(small_field(N, H, W), num_neighbours=200)
    column, row, frame = (samples.neighbours.points * torch.tensor([W, H, N])).round(decimals=3).permute(2, 0, 1).floor().long()
    assert torch.equal(column - column[0], torch.tensor([0, 1, 0, 0])[:, None].expand_as(column))
    assert torch.equal(row - row[0], torch.tensor([0, 0, 1, 0])[:, None].expand_as(row))
    assert torch.equal(frame[:3], frame[:1].expand(3, -1))
    assert torch.equal(frame[3], (frame[0] + 1).clamp(max=N - 1))
    assert (int(column[0].max()), int(row[0].max()), int(frame[0].max())) == (W - 2, H - 2, N - 1)
    torch.testing.assert_close(samples.neighbours.targets, targets[frame, row, column][:3] / 255)


def test_neighbours_do_not_change_the_other_samples() -> None:
    with_them, without = (random_samples(small_field(N, H, W), num_neighbours=count)[0] for count in (6, 0))
    assert torch.equal(with_them.points, without.points)
    assert torch.equal(with_them.flow_to, without.flow_to)
    assert without.neighbours.points.shape == (4, 0, 3)


def test_without_weight_nothing_is_drawn() -> None:
    assert NeighbourLossesConfig().drawn == 0
    assert NeighbourLossesConfig(time_weight=0.1).drawn == 4096


def test_the_gradient_loss_sees_edges_and_no_brightness() -> None:
    wanted = torch.tensor([[[0.2, 0.2, 0.2]], [[0.5, 0.2, 0.2]], [[0.2, 0.2, 0.4]]])
    assert float(gradient_loss(wanted + 0.3, wanted)) == pytest.approx(0, abs=1e-6)
    assert float(gradient_loss(torch.full((3, 1, 3), 0.7), wanted)) == pytest.approx((0.3 + 0.2) / 6)


class Linear(nn.Module):
    """D = (0.5 x + 0.1 z, -0.25 y - 0.3 z) with z in frames: derivatives are known everywhere."""

    def forward(self, points: Tensor) -> Tensor:
        x, y, frame = points[:, 0], points[:, 1], points[:, 2] * N
        return torch.stack([0.5 * x + 0.1 * frame, -0.25 * y - 0.3 * frame], 1)[:, None]


def test_the_total_variation_of_a_linear_deformation_is_its_derivative() -> None:
    field = small_field(N, H, W)
    points = random_samples(field, num_neighbours=300)[0].neighbours.points
    space, time = total_variation(field, points, Linear()(points.flatten(0, 1)).unflatten(0, (4, 300)))
    assert float(space) == pytest.approx((0.5 + 0.25) / 4, rel=1e-4)  # two axes of two components; the mixed derivatives are zero
    followed = float((points[3, :, 2] > points[0, :, 2]).float().mean())
    assert float(time) == pytest.approx((0.1 + 0.3) / 2 * followed, rel=1e-4)


@torch.no_grad()
def _twin(field: VideoField, samples, flow_weight: float) -> float:
    """The loss, one sample and one canonical image at a time, through rendered colours and single displacements."""

    def colour(point: Tensor) -> Tensor:
        return field(point[None])[0]

    def moved(point: Tensor) -> Tensor:
        return field.deformation(point[None])[0]

    def parts(*points: Tensor) -> Tensor:
        return torch.stack([field.frame_weights[round(float(point[2]) * N)] for point in points]).min(0).values

    def shows_body(point: Tensor) -> bool:
        return bool(field.body is None or field.body[round(float(point[2]) * N), int(point[1] * H), int(point[0] * W)] > 0)

    losses = [float((colour(point) - target).abs().sum()) / (3 * 20) for point, target in zip(samples.points, samples.targets, strict=True)]
    for start, end, flow in zip(samples.flow_from, samples.flow_to, samples.flow, strict=True):
        apart = (moved(start) - moved(end) - flow).abs().sum(1)
        losses.append(flow_weight * float((apart * parts(start, end)).sum()) / (2 * 10))
    for p in range(6):
        here, right, below, later = samples.neighbours.points[:, p]
        target = samples.neighbours.targets[:, p]
        for k, (other, scale) in enumerate([(right, W), (below, H)], start=1):
            step = colour(other) - colour(here) - (target[k] - target[0])
            losses.append(ALL.gradient_weight * float(step.abs().sum()) / (6 * 2 * 3))
            change = ((moved(other) - moved(here)) * scale).abs().sum(1) * parts(here, other)
            losses.append(ALL.space_weight * float(change.sum()) / (6 * 2 * 2) * (shows_body(here) and shows_body(other)))
        change = (moved(later) - moved(here)).abs().sum(1) * parts(here, later)
        losses.append(ALL.time_weight * float(change.sum()) / (6 * 2) * (shows_body(here) and shows_body(later)))
    return sum(losses)


@pytest.mark.parametrize("make", [small_field, layered_field])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_sum_over_single_samples(make, seed: int) -> None:
    field = make(N, H, W)
    nn.init.normal_(field.deformation.network[-1].weight, std=0.3, generator=torch.Generator().manual_seed(seed))
    samples, _ = random_samples(field, seed)
    losses = ivr_loss(field, samples, 2.0, ALL).detached()
    assert float(losses.total) == pytest.approx(_twin(field, samples, 2.0), rel=1e-4)
    assert min(float(value) for value in vars(losses).values()) > 0


def test_canonical_images_are_compared_with_themselves_alone() -> None:
    """Frame 0 is of the first image alone, frame 2 of the second: their displacements may differ as they like."""
    here, there = torch.zeros(1, 2, 2), torch.tensor([[[9.0, 9.0], [0.1, 0.0]]])
    assert float(flow_loss(here, there, torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))) == pytest.approx(0.05)
    assert float(flow_loss(here, there, torch.zeros(1, 2), torch.zeros(1, 2))) == 0


def test_gradients_are_those_of_finite_differences() -> None:
    """In float64, with every layer and every loss, for parameters of each part."""
    field = layered_field(N, H, W).double()
    samples, _ = random_samples(field)
    doubles = replace(samples, **{name: value.double() for name, value in vars(samples).items() if isinstance(value, Tensor)})
    beside = replace(samples.neighbours, points=samples.neighbours.points.double(), targets=samples.neighbours.targets.double())
    doubles = replace(doubles, neighbours=beside)
    parts = [field.deformation, *field.canonicals, field.background]
    chosen = [part.network[-1].weight for part in parts] + [part.network[0].bias for part in parts]

    def loss(*_values: Tensor) -> Tensor:
        return ivr_loss(field, doubles, 0.8, ALL).total

    assert torch.autograd.gradcheck(loss, chosen, eps=1e-7, atol=1e-6)

import pytest
import torch

from dpscale.diffusion.windows import Blending, blend, blend_weights, borders, windows


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [(5, [(0, 5)]), (16, [(0, 16)]), (17, [(0, 16), (1, 17)]), (24, [(0, 16), (8, 24)]), (30, [(0, 16), (8, 24), (14, 30)])],
)
def test_windows_cover_the_video_and_end_with_it(num_frames, expected):
    assert [(w.start, w.stop) for w in windows(num_frames, 16, 8)] == expected


def test_blending_equal_predictions_changes_nothing_and_weights_are_triangular():
    video = torch.randn(2, 30, 3, 3)
    where = windows(30, 16, 8)
    assert torch.allclose(blend([video[:, w] for w in where], where, 30), video, atol=1e-6)
    assert blend_weights(4).tolist() == [0.5, 1.5, 1.5, 0.5]


def test_blending_is_the_weighted_mean_of_the_windows_that_hold_a_frame():
    where = windows(6, 4, 2)
    parts = [torch.full((1, 4, 1, 1), v) for v in (1.0, 3.0)]
    slow = []
    for n in range(6):
        pairs = [
            (float(p[0, n - w.start, 0, 0]), float(blend_weights(4)[n - w.start])) for p, w in zip(parts, where, strict=True) if w.start <= n < w.stop
        ]
        slow.append(sum(v * k for v, k in pairs) / sum(k for _, k in pairs))
    assert blend(parts, where, 6)[0, :, 0, 0].tolist() == pytest.approx(slow)


@pytest.mark.parametrize("num_frames", [3, 4, 9, 30])
@pytest.mark.parametrize("at_once", [1, 2, 50])
def test_blending_piece_by_piece_equals_blending_at_once_to_the_bit(num_frames, at_once):
    where = windows(num_frames, 4, 2)
    parts = [torch.randn(2, w.stop - w.start, 3, 3) for w in where]
    blending, pending, pieces = Blending(where, num_frames, torch.device("cpu")), None, []
    for first in range(0, len(where), at_once):
        blended = blending.add(first, parts[first : first + at_once], pending)
        pending = blended.pending
        pieces.append(blended.mean)
        assert blended.frames.stop == sum(piece.shape[1] for piece in pieces), "finished frames follow each other"
    assert pending.shape[1] == 0
    assert torch.equal(torch.cat(pieces, 1), blend(parts, where, num_frames))


def test_borders_are_where_windows_begin_or_end():
    assert borders(windows(30, 16, 8)) == [7, 13, 15, 23]
    assert borders(windows(16, 16, 8)) == []

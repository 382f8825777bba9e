import numpy as np
import pytest

from dpscale.body.rendered import HELD_OUT_SEED, TRAINING_MOTIONS, render_performer
from dpscale.config.schema import PretrainConfig
from dpscale.finetune.training_set import training_seeds

SIZE = 96


@pytest.fixture(scope="module")
def clip():
    return render_performer(HELD_OUT_SEED + 7, "dance_a", 4, 20.0, SIZE)


def test_a_seed_gives_the_same_clip_and_another_seed_another(clip):
    again = render_performer(HELD_OUT_SEED + 7, "dance_a", 2, 20.0, SIZE, with_flow=False)
    other = render_performer(HELD_OUT_SEED + 8, "dance_a", 2, 20.0, SIZE, with_flow=False)
    assert (again.frames.shape, other.frames.shape) == ((2, SIZE, SIZE, 3),) * 2
    assert not np.array_equal(again.frames, other.frames)
    assert np.array_equal(again.frames, render_performer(HELD_OUT_SEED + 7, "dance_a", 2, 20.0, SIZE, with_flow=False).frames)


def test_iuv_covers_what_the_mask_covers(clip):
    body, mask = clip.pose.iuv[..., 0] > 0, clip.mask > 127
    assert (body & mask).sum() / (body | mask).sum() > 0.93
    assert 0.02 < body.mean() < 0.6


def test_the_body_stays_inside_the_picture(clip):
    body = clip.pose.iuv[..., 0] > 0
    assert not body[:, [0, -1]].any()
    assert not body[:, :, [0, -1]].any()
    assert (clip.pose.keypoints[..., 2] == 1).all()


def test_flow_carries_each_point_to_the_same_point_of_the_body(clip):
    """(part, u, v) at the flow's target equals (part, u, v) at its start, up to the rounding to whole pixels."""
    for n in range(len(clip.frames) - 1):
        rows, columns = np.nonzero(clip.pose.flow_valid[n])
        target = np.stack([columns, rows], 1) + 0.5 + clip.pose.flow[n, rows, columns] * SIZE
        x, y = np.floor(target).astype(int).T
        start, end = clip.pose.iuv[n, rows, columns].astype(int), clip.pose.iuv[n + 1, y, x].astype(int)
        same_part = start[:, 0] == end[:, 0]
        assert same_part.mean() > 0.85
        assert np.median(np.abs(start[same_part, 1:] - end[same_part, 1:])) < 12
    assert not clip.pose.flow_valid[-1].any()


def test_training_never_sees_what_tests_and_demo_use():
    assert not {"dance_a", "dance_b"} & set(TRAINING_MOTIONS)
    train, held_out = training_seeds(PretrainConfig())
    assert max(held_out) < HELD_OUT_SEED
    assert not set(train) & set(held_out)
    with pytest.raises(ValueError, match="1000000"):
        training_seeds(PretrainConfig(num_performers=999_995, held_out_performers=8))

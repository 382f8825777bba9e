"""Flow from IUV against the renderer's exact flow, and against a slow twin that looks at every pair of pixels."""

import numpy as np
import pytest

from dpscale.body.rendered import render_performer
from dpscale.preprocess import iuv_flow as module
from dpscale.preprocess.iuv_flow import clip_flow, iuv_flow

SIZE = 128


@pytest.fixture(scope="module", params=["dance_a", "walk"])
def pose(request):
    return render_performer(1_000_002, request.param, 5, 15.0, SIZE, 1).pose


def test_agrees_with_the_renderers_flow(pose):
    found = clip_flow(pose.iuv)
    both = found.valid & pose.flow_valid
    error_px = np.linalg.norm((found.flow - pose.flow)[both], axis=1) * SIZE
    moved_px = np.linalg.norm(pose.flow[both], axis=1) * SIZE
    assert np.median(error_px) < 0.1
    assert np.median(error_px) < 0.2 * np.median(moved_px)
    assert (error_px > 2).mean() < 0.01
    assert both.sum() > 0.85 * pose.flow_valid.sum()
    assert (found.valid & ~pose.flow_valid).sum() < 0.1 * found.valid.sum()  # pixels at the rim of what hides


def test_says_nothing_about_the_background_and_the_last_frame(pose):
    found = clip_flow(pose.iuv)
    assert not found.valid[pose.iuv[..., 0] == 0].any()
    assert not found.flow[~found.valid].any()
    assert not found.valid[-1].any()
    assert found.flow.dtype == np.float16


def test_a_still_body_stays_where_it_is(pose):
    still = iuv_flow(pose.iuv[0], pose.iuv[0])
    assert np.abs(still.offset).max() * SIZE < 1
    assert np.median(np.abs(still.offset[still.valid])) == 0
    assert still.valid.sum() > 0.85 * (pose.iuv[0, ..., 0] > 0).sum()


def test_a_hidden_part_has_no_flow(pose):
    without = pose.iuv[1] * (pose.iuv[1, ..., :1] != 2)
    found = iuv_flow(pose.iuv[0], without)
    assert not found.valid[pose.iuv[0, ..., 0] == 2].any()
    assert found.valid.any()


def test_an_empty_picture_has_no_flow(pose):
    empty = np.zeros_like(pose.iuv[0])
    for here, there in [(empty, pose.iuv[0]), (pose.iuv[0], empty), (empty, empty)]:
        found = iuv_flow(here, there)
        assert not found.valid.any()
        assert not found.offset.any()


def test_a_sloping_chart_is_followed_to_parts_of_a_pixel():
    y, x = np.mgrid[:40, :40] + 0.5
    here, there = np.zeros((2, 40, 40, 3), np.uint8)
    shift = np.array([2.4, -1.7])
    for picture, dx, dy in [(here, 0, 0), (there, *shift)]:
        picture[..., 0] = 7
        picture[..., 1], picture[..., 2] = np.rint(20 + 5 * (x - dx)), np.rint(30 + 4 * (y - dy) + (x - dx))
    found = iuv_flow(here, there)
    inside = found.valid[5:-5, 5:-5]
    assert inside.mean() > 0.95
    error_px = np.linalg.norm(found.offset[5:-5, 5:-5][inside] * 40 - shift, axis=1)
    assert np.median(error_px) < 0.25  # u and v are rounded to a fifth of a pixel, in both pictures


def _slow_match(iuv_point, picture):
    """Place (x, y), whether it is near, the nearest pixel, and whether no other pixel is as near: over all pixels, in loops."""
    part, u, v = map(float, iuv_point)
    rivals = []
    for row, column in np.argwhere(picture[..., 0] == part):
        rivals.append((np.hypot(picture[row, column, 1] - u, picture[row, column, 2] - v), row, column))
    if not rivals:
        return None, False, None, True
    rivals.sort(key=lambda rival: rival[0])
    distance, row, column = rivals[0]
    away, change = [], []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            y, x = row + dy, column + dx
            if 0 <= y < picture.shape[0] and 0 <= x < picture.shape[1] and picture[y, x, 0] == part:
                away.append([dx, dy])
                change.append(picture[y, x, 1:].astype(float) - picture[row, column, 1:])
    gradient = np.linalg.lstsq(np.array(away, float), np.array(change), rcond=None)[0].T
    left = np.array([u, v]) - picture[row, column, 1:]
    damped = np.vstack([gradient, module._FLAT * np.eye(2)])
    step = np.linalg.lstsq(damped, np.concatenate([left, [0, 0]]), rcond=None)[0]
    considered = rivals[: module._RIVALS]
    guess = any(np.hypot(r - row, c - column) > module._RIVAL_PX and d < distance + module._RIVAL_UV for d, r, c in considered)
    near = bool(not guess and np.hypot(*step) <= module._STEP_PX and np.hypot(*left) <= module._NEAR_UV)
    ahead = [d for d, _, _ in rivals[: module._RIVALS + 1]]
    return np.array([column + 0.5, row + 0.5]) + step, near, (row, column), min(np.diff(ahead), default=1.0) > 1e-9


def test_equals_its_slow_twin(pose):
    rows, columns = np.argwhere(pose.iuv[0, ..., 0] > 0).mean(0).astype(int)
    window = np.s_[rows - 12 : rows + 12, columns - 12 : columns + 12]
    here, there = pose.iuv[0][window], pose.iuv[1][window]
    found, compared = iuv_flow(here, there), 0
    for row, column in np.argwhere(here[..., 0] > 0):
        center = np.array([column + 0.5, row + 0.5])
        point, near, pixel, unique = _slow_match(here[row, column], there)
        back, back_near, _, back_unique = _slow_match(there[pixel], here) if pixel else (None, False, None, True)
        if not (unique and back_unique):
            continue  # two pixels are equally near: either is right
        compared += 1
        valid = near and back_near and np.hypot(*(back - (center + np.array(pixel)[::-1] + 0.5 - point))) <= module._RETURN_PX
        assert found.valid[row, column] == valid
        np.testing.assert_allclose(found.offset[row, column], (point - center) / 24 if valid else 0, atol=1e-4)
    assert compared > 50

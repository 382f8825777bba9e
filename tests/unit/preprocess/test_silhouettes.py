"""A silhouette finds its way from the network's square into the crop."""

import numpy as np

from dpscale.body.rendered import render_performer
from dpscale.preprocess.blazepose import BlazePose, Reading, Roi
from dpscale.preprocess.crop import Crop
from dpscale.preprocess.keypoints import track_person
from dpscale.preprocess.silhouettes import Silhouette, coverages


def test_a_disc_lands_where_it_was():
    roi = Roi(x=60.0, y=50.0, side=80.0, angle=0.6)
    grid = (np.arange(256) + 0.5) / 256 - 0.5
    places = roi.to_picture(np.stack(np.meshgrid(grid, grid), -1))
    disc = (np.hypot(places[..., 0] - 64, places[..., 1] - 40) < 12).astype(float)
    reading = Reading(np.zeros((33, 3)), np.zeros((33, 3)), disc, roi, roi)
    crop = Crop(left=60, top=40, side=128, size=64)  # of a picture twice as large as the one that was read
    cover = Silhouette.of(reading).over(crop, scale=2.0, size=64) >= 128
    rows, columns = np.nonzero(cover)
    middle = (np.array([columns.mean(), rows.mean()]) + 0.5) * 2 + [60, 40]
    np.testing.assert_allclose(middle, [128, 80], atol=0.5)
    assert abs(cover.sum() * 4 - np.pi * 24**2) < 60


def test_a_rendered_person_is_covered_and_a_lost_one_is_not():
    clip = render_performer(1_000_003, "walk", 4, 10.0, 192, 1, yaw=0.0, with_flow=False)
    frames = clip.frames.copy()
    frames[1] = 90
    track = track_person("walk", frames, BlazePose(), 0.5)
    cover = coverages(track.silhouettes, Crop(0, 0, 192, 192), track.scale, 192)
    assert not cover[1].any()
    truth, found = clip.mask[[0, 2, 3]] >= 128, cover[[0, 2, 3]] >= 128
    assert (truth & found).sum() / (truth | found).sum() > 0.85
    assert sum(len(s.packed) for s in track.silhouettes if s) < 3 * 20_000

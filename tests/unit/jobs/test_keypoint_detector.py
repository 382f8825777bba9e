"""Keypoints of made videos: those of a known person, and NaN where nobody is."""

from __future__ import annotations

import numpy as np

from dpscale.body.rendered import render_performer
from jobs.keypoint_detector import detect_keypoints


def test_a_rendered_person_is_found_where_it_is():
    clip = render_performer(1_000_003, "walk", num_frames=2, fps=15.0, size=256, supersampling=1, yaw=0.0, with_flow=False)
    found = detect_keypoints(clip.frames)
    error_px = np.linalg.norm(found[..., :2] - clip.pose.keypoints[..., :2], axis=-1)
    assert found.shape == (2, 18, 3)
    assert np.median(error_px) < 8  # 1.6 to 6 px of 256 are usual for these networks on rendered people


def test_nobody_is_nan():
    assert np.isnan(detect_keypoints(np.full((2, 128, 128, 3), 90, np.uint8))).all()

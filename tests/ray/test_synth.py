"""`dpscale synth` end to end: two small performers."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from dpscale.body.rendered import render_performer
from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from jobs.cli import main
from jobs.synth import performer

pytestmark = pytest.mark.usefixtures("ray_session")


def test_videos_come_with_exact_truth_and_are_made_once(tmp_path: Path):
    settings = ["synth.num_performers=2", "synth.first_seed=5", "synth.num_frames=2", "synth.supersampling=1", "preprocess.size=64"]
    command = ["synth", "--out", str(tmp_path / "run"), *(word for setting in settings for word in ("--set", setting))]
    layout, (one, other) = RunLayout(tmp_path / "run"), (performer(Config(), seed) for seed in (5, 6))
    assert main(command) == 0
    with np.load(layout.truth(one.name)) as truth:
        expected = render_performer(5, one.motion, 2, one.fps, 64, 1)
        np.testing.assert_array_equal(truth["iuv"], expected.pose.iuv)
        np.testing.assert_array_equal(truth["rotations"], expected.pose.motion.rotations)
    with av.open(str(layout.source_video(other.name))) as video:
        assert [frame.to_ndarray(format="rgb24").shape for frame in video.decode(video=0)] == [(64, 64, 3)] * 2
    written = layout.truth(one.name).stat().st_mtime_ns
    assert main(command) == 0
    assert layout.truth(one.name).stat().st_mtime_ns == written

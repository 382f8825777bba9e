"""One video through real shards and a real result folder, to real files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dpscale.config.schema import Config, EvaluateConfig, RunConfig
from dpscale.config.sources import MotionDrive, Pose2simPerformer, SelfDrive, VideoConfig
from dpscale.data.checkpoint import commit_folder
from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.data.types import InputError
from dpscale.evaluate.one_video import artifacts, evaluate_video
from tests.unit.evaluate.clips import SIZE, driving_clip, main_clip

SELF, DANCE = VideoConfig(performer="ann"), VideoConfig(performer="ann", drive="dance")


@pytest.fixture
def run(tmp_path):
    config = Config(
        run=RunConfig(root=tmp_path, name="one"),
        performers=(Pose2simPerformer(name="ann"),),
        drives=(SelfDrive(), MotionDrive(name="dance")),
    )
    layout = RunLayout.of(config)
    write_clip(layout.shard("ann", "main"), main_clip(15, 12))
    write_clip(layout.shard("ann", "dance"), driving_clip(5))
    write_result(layout, SELF, 3)
    write_result(layout, DANCE, 5)
    return config, layout


def write_result(layout, video, num_frames, seed=0):
    rng = np.random.default_rng(seed)
    frames = {name: rng.integers(0, 256, (num_frames, SIZE, SIZE, 3), dtype=np.uint8) for name in ("wo_opt", "ivr_opt", "field")}
    commit_folder(layout.joint(video) / "result", lambda into: np.savez(into / "frames.npz", **frames), {"seed": seed})


def test_self_driving_gets_every_method_metric_and_file(run):
    config, layout = run
    done = evaluate_video(config, layout, SELF, lambda frames: np.zeros((len(frames), 18, 3)))
    assert not done.skipped
    assert json.loads(layout.metrics(SELF).read_text()) == done.record
    assert set(done.record["methods"]) == {"ivr_opt", "wo_opt", "warped", "nearest_pose", "mean_frame"}
    assert {"psnr", "psnr_body", "ssim", "l1", "mae", "warp_error", "keypoint_error_px"} <= set(done.record["methods"]["wo_opt"])
    assert done.record["floor"]["warp_error"] == pytest.approx(0)
    assert [path.name for path in artifacts(layout.videos(SELF))] == [
        "contact_sheet.png", "field.mp4", "ivr_opt.mp4", "nearest_pose.mp4", "pose.mp4", "reference.png", "truth.mp4", "warped.mp4", "wo_opt.mp4",
    ]  # fmt: skip


def test_another_drive_has_no_truth(run):
    config, layout = run
    record = evaluate_video(config, layout, DANCE, None).record
    assert not record["has_truth"]
    assert record["fps"] == 12.0
    assert all(set(values) == {"warp_error"} for values in record["methods"].values())
    assert not (layout.videos(DANCE) / "truth.mp4").exists()


def test_finished_and_unchanged_is_skipped_and_any_change_is_seen(run):
    config, layout = run
    first = evaluate_video(config, layout, SELF, None)
    again = evaluate_video(config, layout, SELF, None)
    assert again.skipped
    assert again.record == first.record
    other = config.model_copy(update={"evaluate": EvaluateConfig(body_dilation_px=5)})
    assert not evaluate_video(other, layout, SELF, None).skipped
    write_result(layout, SELF, 3, seed=1)
    assert not evaluate_video(other, layout, SELF, None).skipped
    assert evaluate_video(other, layout, SELF, None).skipped
    layout.metrics(SELF).unlink()
    assert not evaluate_video(other, layout, SELF, None).skipped


def test_values_that_json_cannot_hold_are_null(run):
    config, layout = run
    record = evaluate_video(config, layout, SELF, lambda frames: np.full((len(frames), 18, 3), np.nan)).record
    assert record["methods"]["ivr_opt"]["keypoint_error_px"] is None
    assert record["methods"]["ivr_opt"]["keypoint_detected"] == 0


def test_without_a_result_the_stage_to_run_is_named(run):
    config, layout = run
    with pytest.raises(InputError, match="run optimize first"):
        evaluate_video(config, layout, VideoConfig(performer="bob"), None)

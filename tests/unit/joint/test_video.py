from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpscale.config.schema import Config, RunConfig
from dpscale.config.sources import MotionDrive, SelfDrive, VideoConfig, VideoPerformer
from dpscale.data.checkpoint import commit_folder
from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.data.types import Clip, InputError
from dpscale.joint.video import fingerprint, load_task
from tests.small_performer import small_clip, small_model

SELF, DANCE = VideoConfig(performer="ann"), VideoConfig(performer="ann", drive="dance")


def config_of(root: Path, **sections: object) -> Config:
    performer = VideoPerformer(name="ann", path=Path("none.mp4"))
    return Config(run=RunConfig(root=root), performers=(performer,), drives=(SelfDrive(), MotionDrive(name="dance")), **sections)


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Config, RunLayout, Clip]:
    """A performer with a clip, a driving clip and a finetuning result."""
    config = config_of(tmp_path)
    layout = RunLayout.of(config)
    main, drive = small_clip("ann", small_model()), small_clip("drive", small_model(), num_frames=7, num_train=7)
    write_clip(layout.shard("ann", "main"), main)
    write_clip(layout.shard("ann", "dance"), Clip("ann", "dance", 30.0, 7, drive.pose))
    commit_folder(layout.finetune("ann"), lambda folder: None, {"settings": "one"})
    return config, layout, main


def test_self_drive_takes_the_held_out_frames(prepared: tuple[Config, RunLayout, Clip]) -> None:
    config, layout, main = prepared
    task = load_task(config, layout, SELF)
    assert task.name == "ann--self"
    assert task.shape == (3, 32, 32)
    np.testing.assert_array_equal(task.pose.iuv, main.pose.iuv[12:])
    np.testing.assert_array_equal(task.reference, main.frames[0])
    np.testing.assert_array_equal(task.image_embedding, main.image_embedding)
    np.testing.assert_array_equal(task.known.frames, main.frames[:12])  # looks come from the training part alone
    assert len(task.known.iuv) == len(task.known.keypoints) == 12


def test_another_drive_takes_its_own_clip(prepared: tuple[Config, RunLayout, Clip]) -> None:
    config, layout, main = prepared
    task = load_task(config, layout, DANCE)
    assert task.name == "ann--dance"
    assert len(task.pose) == 7
    np.testing.assert_array_equal(task.reference, main.frames[0])


def test_held_out_cuts_every_array(prepared: tuple[Config, RunLayout, Clip]) -> None:
    tail = prepared[2].pose.at(slice(12, None))
    arrays = (tail.keypoints, tail.iuv, tail.flow, tail.flow_valid, tail.motion.rotations, tail.motion.root)
    assert {len(array) for array in arrays} == {3}


@pytest.mark.parametrize("missing", ["clip", "finetune"])
def test_a_missing_stage_is_named(tmp_path: Path, missing: str) -> None:
    config = config_of(tmp_path)
    layout = RunLayout.of(config)
    if missing == "finetune":
        write_clip(layout.shard("ann", "main"), small_clip("ann", small_model()))
    expected = {"clip": "preprocess performer 'ann' first", "finetune": "finetune performer 'ann' first"}[missing]
    with pytest.raises(InputError, match=expected):
        load_task(config, layout, SELF)


def test_the_fingerprint_changes_with_what_decides_the_frames(prepared: tuple[Config, RunLayout, Clip]) -> None:
    config, layout, _ = prepared
    same = config_of(config.run.root, scheduler={"slice_steps": 7, "field_workers": 5, "kind": "fifo"})
    others = [config_of(config.run.root, **section) for section in ({"joint": {"steps": 7}}, {"field": {"lr": 0.1}}, {"ray": {"torch_threads": 2}})]
    prints = [fingerprint(one, layout, SELF) for one in (config, *others)] + [fingerprint(config, layout, DANCE)]
    assert len(set(prints)) == 5
    assert fingerprint(same, layout, SELF) == prints[0]
    commit_folder(layout.finetune("ann"), lambda folder: None, {"settings": "two"})
    assert fingerprint(config, layout, SELF) != prints[0]


def test_options_that_are_off_leave_the_fingerprint_of_earlier_results(prepared: tuple[Config, RunLayout, Clip]) -> None:
    config, layout, _ = prepared
    counted = ("steps", "refresh_interval", "warm_up_steps", "flow_weight", "background_flow", "first_strength", "strength_from", "strength_to")
    settings = config.joint.model_dump(mode="json")
    assert config.joint.decisive() == {name: settings[name] for name in counted}
    assert fingerprint(config_of(config.run.root, joint={"refresh_interval_rule": "runs/search"}), layout, SELF) == fingerprint(config, layout, SELF)
    on = [{"method": "image"}, {"refresh_overlap": 5}, {"stop_l1": 2.0}, {"stop_l1": 2.0, "stop_checks": 9}]
    assert len({fingerprint(config_of(config.run.root, joint=joint), layout, SELF) for joint in ({}, *on)}) == 5


def test_a_video_may_have_an_interval_of_its_own(prepared: tuple[Config, RunLayout, Clip]) -> None:
    config, layout, _ = prepared
    own = SELF.model_copy(update={"refresh_interval": 7})
    for joint in ({}, {"refresh_interval": "auto", "refresh_interval_rule": "runs/search"}):
        asked = config_of(config.run.root, joint=joint)
        assert load_task(asked, layout, own).config.joint.refresh_interval == 7
        assert fingerprint(asked, layout, own) == fingerprint(config_of(config.run.root, joint={"refresh_interval": 7}), layout, SELF)
    for needs_a_number in (load_task, fingerprint):
        with pytest.raises(InputError, match=r"ann--self: joint\.refresh_interval = 'auto' is predicted by"):
            needs_a_number(asked, layout, SELF)

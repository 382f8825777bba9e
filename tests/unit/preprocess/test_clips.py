"""A filmed clip's chunks: whole, in order, and with the flow of the meshes that the user brings."""

import numpy as np
import pytest
import torch

from dpscale.body.parametric import SCALE_SEGMENTS, load_body
from dpscale.body.rendered import person, render_performer
from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.shards import read_clip, write_clip
from dpscale.data.types import BodyShape, Clip, InputError
from dpscale.field.loss import HumanFlow
from dpscale.preprocess import clips
from dpscale.preprocess.clips import Tools, driving_chunks, main_chunks, prepare_person
from dpscale.preprocess.crop import Crop
from dpscale.preprocess.drive import Movement, drive_by_movement
from dpscale.preprocess.fitted import FittedBody, load_body_of, save_body
from dpscale.preprocess.keys import body_key
from dpscale.preprocess.sources import write_h264
from dpscale.preprocess.surface import pose_of_body
from tests.unit.preprocess.meshes import rendered_arrays, saved

SEED, SIZE, FRAMES = 1_000_003, 192, 5


@pytest.fixture(scope="module")
def clip():
    return render_performer(SEED, "walk", FRAMES, 10.0, SIZE, 1, yaw=0.0)


def tools_for(tmp_path, clip, **beside) -> Tools:
    write_h264(tmp_path / "walk.mp4", clip.frames, 10.0)
    ann = {"kind": "video", "name": "ann", "path": str(tmp_path / "walk.mp4"), **beside}
    config = Config.model_validate({"run": {"root": str(tmp_path)}, "performers": [ann], "preprocess": {"size": 96, "fit_steps": 5}})
    return Tools(config, RunLayout.of(config))


def pose_of(tools: Tools):
    note = prepare_person(tools, tools.config.performers[0], "digest")
    chunks = list(main_chunks(tools, tools.config.performers[0], "digest", {}))
    return note, chunks


def test_chunks_join_to_the_clip_in_one(tmp_path, clip, monkeypatch):
    tools = tools_for(tmp_path, clip)
    _, whole = pose_of(tools)
    monkeypatch.setattr(clips, "_MOST_FRAMES", 2)
    _, parts = pose_of(tools)
    assert [(c.start, len(c.clip), c.num_frames) for c in parts] == [(0, 2, FRAMES), (2, 2, FRAMES), (4, 1, FRAMES)]
    for name in ("iuv", "flow", "flow_valid", "keypoints"):
        joined = np.concatenate([getattr(c.clip.pose, name) for c in parts])
        np.testing.assert_array_equal(joined, getattr(whole[0].clip.pose, name), err_msg=name)
    np.testing.assert_array_equal(np.concatenate([c.clip.frames for c in parts]), whole[0].clip.frames)


def test_the_users_meshes_give_the_flow(tmp_path, clip):
    arrays = rendered_arrays(clip, SEED, Crop(0, 0, SIZE, SIZE), (SIZE, SIZE))
    tools = tools_for(tmp_path, clip, mesh=str(saved(tmp_path / "mesh.npz", arrays)))
    _, (chunk,) = pose_of(tools)
    pose = chunk.clip.pose
    crop = load_body_of(next((tools.layout.root / "steps").glob("body-*.npz"))).crop
    n, y, x = np.nonzero(pose.flow_valid)
    column, row = (np.floor((np.stack([x, y]) + 0.5) / crop.scale + [[crop.left], [crop.top]])).astype(int)
    inside = (column >= 0) & (column < SIZE) & (row >= 0) & (row < SIZE)
    n, y, x, column, row = (a[inside] for a in (n, y, x, column, row))
    exact = clip.pose.flow_valid[n, row, column]
    miss = pose.flow[n, y, x] * crop.side - clip.pose.flow[n, row, column] * SIZE  # px of the video
    assert exact.mean() > 0.9
    assert np.median(np.linalg.norm(miss, axis=1)[exact]) < 0.5


def test_meshes_of_another_clip_are_refused_before_the_fit(tmp_path, clip):
    arrays = rendered_arrays(clip, SEED, Crop(0, 0, SIZE, SIZE), (SIZE, SIZE))
    short = {name: array[:3] if name in ("vertices", "root") else array for name, array in arrays.items()}
    tools = tools_for(tmp_path, clip, mesh=str(saved(tmp_path / "mesh.npz", short)))
    with pytest.raises(InputError, match=r"mesh.npz: has 3 frames, the clip of .*walk.mp4 5"):
        pose_of(tools)
    assert not list((tools.layout.root / "steps").glob("body-*.npz"))


@pytest.fixture
def driven(tmp_path):
    """A performer, and another person of another shape whose fitted movement is to drive the performer."""
    ann, bob = {"kind": "video", "name": "ann", "path": "ann.mp4"}, {"kind": "video", "name": "bob", "path": "bob.mp4"}
    config = Config.model_validate({"run": {"root": str(tmp_path)}, "performers": [ann], "drives": [bob], "preprocess": {"size": 96}})
    tools, drive, (reference, driver) = Tools(config, RunLayout.of(config)), config.drives[0], _two_people()
    main = pose_of_body(load_body(), reference.shape, reference.motion, 96)
    write_clip(tools.layout.shard("ann", "main"), Clip("ann", "main", reference.fps, 4, main, np.zeros((5, 96, 96, 3), np.uint8)))
    save_body(tools.layout.step("body", body_key(config, drive, "digest")), FittedBody(driver, Crop(0, 0, 96, 96)))
    return tools, reference, driver


def _two_people() -> tuple[Movement, Movement]:
    """A tall one and a small, broad one, who move differently."""
    found = []
    for motion, height, seed in (("walk", 0.1, 3), ("dance_a", -0.25, 5)):
        seen = render_performer(1_000_000 + seed, motion, FRAMES, 10.0, 96, 1, yaw=0.0, with_flow=False).pose
        shape = BodyShape(person(1_000_000 + seed).shape.betas, np.append(np.zeros(len(SCALE_SEGMENTS) - 1), height))
        found.append(Movement(shape, seen.motion, 10.0))
    return found[0], found[1]


def test_another_persons_movement_drives_the_performers_own_body(driven):
    """(pose_n, shape_ref, camera_n): mesh, IUV, keypoints and flow are those of the reference performer's body, never of the driver's."""
    tools, reference, driver = driven
    (chunk,) = driving_chunks(tools, tools.config.performers[0], tools.config.drives[0], "digest", {})
    pose, motion = chunk.clip.pose, drive_by_movement(load_body(), reference, driver, 96)
    for name in ("betas", "log_scales", "girths"):
        np.testing.assert_array_equal(getattr(pose.shape, name), getattr(reference.shape, name), err_msg=name)
    np.testing.assert_array_equal(pose.motion.rotations, motion.rotations)
    assert (pose.motion.focal_px, pose.motion.center_px) == (reference.motion.focal_px, reference.motion.center_px)
    own, others = (pose_of_body(load_body(), shape, motion, 96) for shape in (reference.shape, driver.shape))
    np.testing.assert_allclose(pose.keypoints, own.keypoints, atol=1e-4)
    for name in ("iuv", "flow", "flow_valid"):
        np.testing.assert_array_equal(getattr(pose, name), getattr(own, name), err_msg=name)
    assert (own.iuv[..., 0] > 0).sum() > 1.2 * (others.iuv[..., 0] > 0).sum(), "the driver's body is another one"
    assert np.abs(own.flow.astype(float) - others.flow)[own.flow_valid & others.flow_valid].max() * 96 > 1, "and moves other pixels"


def test_the_joint_optimisation_gets_the_performers_body(driven):
    """What D's flow loss and the diffusion model see of a driving clip, as the joint optimisation reads it back."""
    tools, reference, _ = driven
    (chunk,) = driving_chunks(tools, tools.config.performers[0], tools.config.drives[0], "digest", {})
    write_clip(tools.layout.shard("ann", "bob"), chunk.clip)
    pose = read_clip(tools.layout.shard("ann", "bob")).pose
    np.testing.assert_array_equal(pose.shape.betas, reference.shape.betas)
    known = HumanFlow.of(*(torch.from_numpy(a) for a in (pose.flow, pose.flow_valid, pose.iuv[..., 0] > 0)), background=False)
    frame, row, column = np.unravel_index(known.pixels.numpy(), pose.flow_valid.shape)
    np.testing.assert_array_equal(np.stack([frame, row, column]), np.argwhere(chunk.clip.pose.flow_valid).T)
    np.testing.assert_array_equal(known.flow.numpy(), chunk.clip.pose.flow[frame, row, column].astype(np.float32))

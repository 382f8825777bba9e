"""A filmed clip's chunks: whole, in order, and with the flow of the meshes that the user brings."""

import numpy as np
import pytest

from dpscale.body.rendered import render_performer
from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.preprocess import clips
from dpscale.preprocess.clips import Tools, main_chunks, prepare_person
from dpscale.preprocess.crop import Crop
from dpscale.preprocess.fitted import load_body_of
from dpscale.preprocess.sources import write_h264
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

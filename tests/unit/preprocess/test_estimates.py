"""Estimates that the user brings take the place of the embedded ones."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dpscale.config.schema import Config
from dpscale.config.sources import VideoPerformer
from dpscale.data.types import InputError
from dpscale.preprocess.crop import Crop
from dpscale.preprocess.decode import VideoInfo
from dpscale.preprocess.estimates import estimators, keypoints_in_crop, pictures_in_crop
from dpscale.preprocess.footage import Footage
from dpscale.preprocess.keypoints import PersonTrack
from dpscale.preprocess.person import FoundPerson
from tests.unit.preprocess.videos import pattern, write_video

CONFIG, CROP = Config(), Crop(left=8, top=0, side=32, size=16)


@pytest.fixture
def footage(tmp_path):
    return Footage(write_video(tmp_path / "clip.mp4", pattern(4, 32, 48), 10.0))


@pytest.fixture
def person():
    landmarks = np.random.default_rng(0).uniform(5, 30, (4, 33, 3))
    landmarks[..., 2] = 1
    return FoundPerson(VideoInfo(32, 48, 10.0), PersonTrack(landmarks, landmarks, np.ones(4, bool), (None,) * 4, 1.0), "")


def performer(footage, **beside) -> VideoPerformer:
    return VideoPerformer(name="ann", path=footage.path, **beside)


def test_blazepose_keypoints_lie_in_the_crop(footage, person):
    found = keypoints_in_crop(CONFIG, performer(footage), footage, person, CROP)
    np.testing.assert_allclose(found[..., :2], (person.track.openpose18()[..., :2] - [8, 0]) / 2)


def test_openpose_files_take_their_place(footage, person, tmp_path):
    truth = np.concatenate([np.random.default_rng(1).uniform(4, 40, (4, 18, 2)), np.full((4, 18, 1), 0.9)], -1)
    folder = tmp_path / "openpose"
    folder.mkdir()
    for n, points in enumerate(truth):
        text = json.dumps({"people": [{"pose_keypoints_2d": points.ravel().tolist()}]})
        (folder / f"clip_{n:012d}_keypoints.json").write_text(text)
    found = keypoints_in_crop(CONFIG, performer(footage, openpose=folder), footage, person, CROP)
    np.testing.assert_allclose(found[..., :2], (truth[..., :2] - [8, 0]) / 2, atol=1e-4)
    assert estimators(CONFIG, performer(footage, openpose=folder), "blazepose") == "OpenPose, body fit, flow from mesh"


def test_smoothing_is_applied(footage, person):
    smooth = Config.model_validate({"preprocess": {"smoothing": {"kind": "savgol", "window_s": 0.3, "polyorder": 0}}})
    raw, calm = (keypoints_in_crop(c, performer(footage), footage, person, CROP) for c in (CONFIG, smooth))
    np.testing.assert_allclose(calm[1, :, :2], raw[:3, :, :2].mean(0))


def test_densepose_files_take_the_place_of_the_fit(footage, tmp_path):
    iuv = np.zeros((4, 32, 48, 3), np.uint8)
    iuv[:, 10:20, 20:30] = [2, 100, 200]
    np.savez(tmp_path / "iuv.npz", iuv=iuv)
    pictures = list(pictures_in_crop(CONFIG, performer(footage, densepose=tmp_path / "iuv.npz"), footage, CROP))
    assert len(pictures) == 4
    np.testing.assert_array_equal(np.unique(pictures[0].iuv.reshape(-1, 3), axis=0), [[0, 0, 0], [2, 100, 200]])
    assert pictures[0].iuv[7, 8, 0] == 2
    plain = next(pictures_in_crop(CONFIG, performer(footage), footage, CROP))
    assert plain.iuv is None
    np.testing.assert_array_equal(plain.colours, pictures[0].colours)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 32, 48, 3), r"iuv.npz: has fewer frames than .*clip.mp4"),
        ((4, 16, 24, 3), r"iuv.npz: is 24x16 px, the video 48x32: make DensePose"),
    ],
)
def test_densepose_of_another_clip_is_refused(footage, tmp_path, shape, message):
    np.savez(tmp_path / "iuv.npz", iuv=np.ones(shape, np.uint8))
    with pytest.raises(InputError, match=message):
        list(pictures_in_crop(CONFIG, performer(footage, densepose=tmp_path / "iuv.npz"), footage, CROP))


def test_a_missing_network_names_its_file(footage, person, tmp_path):
    settings = Config.model_validate({"preprocess": {"keypoints": {"kind": "rtmpose", "weights": str(tmp_path / "gone.onnx")}}})
    with pytest.raises(InputError, match=r"gone.onnx|onnxruntime"):
        keypoints_in_crop(settings, performer(footage), footage, replace(person), CROP)

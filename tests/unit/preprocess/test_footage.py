"""Frames of a stretch are the same wherever they lie."""

import numpy as np
import pytest
from PIL import Image

from dpscale.data.types import InputError
from dpscale.preprocess.footage import Footage, path_digest
from tests.unit.preprocess.videos import pattern, write_video

FRAMES = pattern(20, 32, 48)


@pytest.fixture(scope="module", params=["file", "folder"])
def path(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "file":
        return write_video(folder / "clip.mp4", FRAMES, 30.0)
    for n, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(folder / f"{n + 1}.png")
    return folder


def test_all_of_it(path):
    footage = Footage(path)
    assert (footage.probe().height, footage.probe().width, footage.probe().fps) == (32, 48, 30.0)
    np.testing.assert_array_equal(np.stack(list(footage.frames(100))), FRAMES)
    assert len(list(footage.frames(7))) == 7


def test_a_stretch_of_it(path):
    np.testing.assert_array_equal(np.stack(list(Footage(path, 0.2, 0.5).frames(100))), FRAMES[6:15])
    np.testing.assert_array_equal(np.stack(list(Footage(path, 0.2).frames(4))), FRAMES[6:10])
    np.testing.assert_array_equal(np.stack(list(Footage(path, 0.0, 99.0).frames(100))), FRAMES)


def test_a_stretch_behind_the_end_is_refused(path):
    with pytest.raises(InputError, match=r"start_s = 0.65 leaves 0 frames, at least 2 are needed: start earlier"):
        list(Footage(path, 0.65).frames(100))


def test_the_digest_follows_content_and_stretch(path, tmp_path):
    digests = {Footage(path).digest(), Footage(path, 0.1).digest(), Footage(path, 0.1, 0.4).digest()}
    assert len(digests) == 3
    assert Footage(path, 0.1).digest() in digests


def test_a_folder_beside_the_footage_has_a_digest_of_names_and_content(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.json").write_text("x")
    before = path_digest(tmp_path / "a")
    assert before == path_digest(tmp_path / "a")
    (tmp_path / "a" / "1.json").write_text("y")
    assert path_digest(tmp_path / "a") != before
    with pytest.raises(InputError, match="no such file"):
        path_digest(tmp_path / "gone")

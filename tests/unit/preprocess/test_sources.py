"""Where footage comes from: files, packages, the renderer."""

from pathlib import Path

import numpy as np
import pytest

from dpscale.config.schema import Config, PreprocessConfig, SynthConfig
from dpscale.config.sources import Pose2simPerformer, RenderedPerformer, VideoPerformer
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.preprocess.decode import read_frames
from dpscale.preprocess.sources import clothed_surface, footage_of, rendered_source, source_digest

DOLL = RenderedPerformer(name="doll", performer_seed=1_000_004, num_frames=3, fps=12.5)
CONFIG = Config(preprocess=PreprocessConfig(size=64), synth=SynthConfig(supersampling=1))


def test_a_rendered_performer_is_drawn_once_with_its_truth(tmp_path):
    layout = RunLayout(tmp_path)
    first = rendered_source(DOLL, CONFIG, layout)
    bytes_before, time_before = first.video.read_bytes(), first.video.stat().st_mtime_ns
    again = rendered_source(DOLL, CONFIG, layout)
    assert again.video.stat().st_mtime_ns == time_before
    np.testing.assert_array_equal(again.pose.iuv, first.pose.iuv)
    np.testing.assert_array_equal(again.pose.flow, first.pose.flow)
    frames = np.stack(list(read_frames(first.video, 10)))
    assert frames.shape == (3, 64, 64, 3)
    first.video.unlink()
    assert rendered_source(DOLL, CONFIG, layout).video.read_bytes() == bytes_before


def test_other_settings_are_drawn_again(tmp_path):
    rendered_source(DOLL, CONFIG, RunLayout(tmp_path))
    other = rendered_source(DOLL.model_copy(update={"motion": "walk"}), CONFIG, RunLayout(tmp_path))
    assert source_digest(DOLL, CONFIG) != source_digest(DOLL.model_copy(update={"motion": "walk"}), CONFIG)
    assert len(other.pose) == 3
    limited = CONFIG.model_copy(update={"preprocess": PreprocessConfig(size=64, max_frames=2)})
    assert len(rendered_source(DOLL, limited, RunLayout(tmp_path)).pose) == 2


def test_files_are_known_by_their_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(b"same")
    a, b = (VideoPerformer(name="x", path=tmp_path / f"{name}.mp4") for name in ("a", "b"))
    assert source_digest(a, CONFIG) == source_digest(b, CONFIG)
    b.path.write_bytes(b"other")
    assert source_digest(a, CONFIG) != source_digest(b, CONFIG)
    with pytest.raises(InputError, match="no such file"):
        source_digest(VideoPerformer(name="x", path=Path("/nowhere.mp4")), CONFIG)


def test_the_package_with_the_real_man_is_found_or_named(monkeypatch):
    assert footage_of(Pose2simPerformer(name="man")).path.name == "cam02.mp4"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="make setup"):
        footage_of(Pose2simPerformer(name="man"))


def test_clothes_are_known_of_rendered_performers_only():
    assert clothed_surface(DOLL).shape == (13718, 3)
    assert clothed_surface(Pose2simPerformer(name="man")) is None

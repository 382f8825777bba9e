"""The page from real records and real mp4s."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from dpscale.config.schema import Config, JointConfig, RunConfig
from dpscale.config.sources import Pose2simPerformer, VideoConfig
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from dpscale.data.mp4 import write_mp4
from dpscale.evaluate.record import METRICS
from dpscale.evaluate.video_files import write_png
from dpscale.report.page import PLAYERS, best_value, change, duration, number, write_report

NASTY = "<script>alert('x')</script> & \"quotes\""
METRIC = {metric.key: metric for metric in METRICS}


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.text = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def run(tmp_path):
    config = Config(run=RunConfig(root=tmp_path, name="one"), performers=(Pose2simPerformer(name="ann"), Pose2simPerformer(name="bob")))
    layout = RunLayout.of(config)
    video = VideoConfig(performer="ann")
    folder = layout.videos(video)
    folder.mkdir(parents=True)
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    for name in PLAYERS:
        write_mp4(folder / f"{name}.mp4", frames, 10.0)
    for name in ("reference", "contact_sheet"):
        write_png(folder / f"{name}.png", frames[0])
    write_json(layout.metrics(video), record())
    return config, layout


def record():
    worse = {
        "psnr": 20.0,
        "psnr_body": 15.0,
        "ssim": 0.5,
        "l1": 6.09e-5,
        "mae": 9.0,
        "warp_error": 8.0,
        "keypoint_error_px": None,
        "keypoint_detected": 0.0,
    }
    better = worse | {"psnr": 25.0, "psnr_body": 15.5, "warp_error": 5.0}
    return {
        "performer": "ann", "drive": "self", "has_truth": True, "num_frames": 4, "num_train": 12, "height_px": 32, "width_px": 32, "fps": 10.0,
        "methods": {"wo_opt": worse, "ivr_opt": better}, "floor": {"warp_error": 1.0}, "fingerprint": "f",
    }  # fmt: skip


SUMMARY = {"stages_s": {"preprocess": 12.3, "optimize": 245.0}, "total_s": 257.3, "commit": "0123456789abcdef", "failed": {"bob": NASTY}}


def test_every_video_and_picture_is_in_the_page_itself(run):
    config, layout = run
    page = Elements(write_report(config, layout, SUMMARY).read_text())
    videos = page.of("video")
    assert len(videos) == len(PLAYERS)
    for attrs, name in zip(videos, PLAYERS, strict=True):
        kind, content = attrs["src"].split(",", 1)
        assert kind == "data:video/mp4;base64"
        assert base64.b64decode(content) == (layout.videos(VideoConfig(performer="ann")) / f"{name}.mp4").read_bytes()
    assert len(page.of("img")) == 2
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in page.of("img"))


def test_the_page_needs_no_network(run):
    config, layout = run
    text = write_report(config, layout, SUMMARY).read_text()
    assert not re.search(r"https?:|src=\"//|@import|url\(", text)
    page = Elements(text)
    assert not page.of("link")
    assert all("src" not in attrs for attrs in page.of("script"))
    assert "default-src 'none'" in page.of("meta")[2]["content"]


def test_what_comes_from_outside_is_escaped(run):
    config, layout = run
    text = write_report(config, layout, SUMMARY).read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert len(Elements(text).of("script")) == 1


def test_the_best_value_of_each_column_is_marked(run):
    config, layout = run
    page = write_report(config, layout, SUMMARY).read_text()
    best = re.findall(r'<td class="best" title="best">([^<]*)</td>', page)
    assert best == ["25.00", "15.50", "5.00"]  # equal columns have no winner, the truth's 1.00 does not compete


def test_failures_times_and_settings_are_there(run):
    config, layout = run
    text = "".join(Elements(write_report(config, layout, SUMMARY).read_text()).text)
    for expected in (
        "1 failed",
        NASTY,
        "4 min 05 s",
        "4 min 17 s",
        "0123456789",
        "12.3 s",
        '"body_dilation_px": 2',
        "Warp error \N{MINUS SIGN}3.00 levels",
    ):
        assert expected in text


def test_the_summary_in_the_run_folder_is_used(run):
    config, layout = run
    layout.summary.write_text(json.dumps(SUMMARY))
    assert "4 min 17 s" in write_report(config, layout).read_text()


@pytest.mark.parametrize("predicted", [True, False])
def test_a_video_with_an_interval_of_its_own_tells_it(run, predicted):
    config, layout = run
    if predicted:
        joint = JointConfig(refresh_interval="auto", refresh_interval_rule=layout.rule)
        config = config.model_copy(update={"joint": joint})
        write_json(layout.interval(VideoConfig(performer="ann")), {"refresh_interval": 400})
    else:
        config = config.model_copy(update={"videos": (VideoConfig(performer="ann", refresh_interval=400),)})
    assert f"a refresh every 400 steps{', as predicted' * predicted}</p>" in write_report(config, layout, SUMMARY).read_text()


def test_a_run_with_nothing_in_it_still_has_a_page(tmp_path):
    config = Config(run=RunConfig(root=tmp_path, name="empty"), performers=(Pose2simPerformer(name="ann"),))
    text = write_report(config, RunLayout.of(config)).read_text()
    assert "0</b> of 1 videos" in re.sub(r"<b>", "", text)
    assert "run the same command again" in text


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("psnr", 28.994, "28.99"),
        ("ssim", 0.7, "0.700"),
        ("l1", 6.09e-5, "6.09e-5"),
        ("keypoint_detected", 0.25, "25%"),
        ("psnr", None, "\N{EN DASH}"),
    ],
)
def test_numbers_as_people_read_them(key, value, text):
    assert number(METRIC[key], value) == text


def test_best_follows_the_metric_and_needs_a_difference():
    assert best_value(METRIC["psnr"], [1.0, None, 2.0]) == 2.0
    assert best_value(METRIC["mae"], [1.0, None, 2.0]) == 1.0
    assert best_value(METRIC["mae"], [1.0, 1.0]) is None
    assert best_value(METRIC["mae"], [None, 1.0]) is None


@pytest.mark.parametrize(
    ("key", "result", "before", "expected"),
    [
        ("psnr", 21.0, 20.0, ("+1.00", "better")),
        ("warp_error", 4.0, 5.0, ("\N{MINUS SIGN}1.00", "better")),
        ("warp_error", 5.0, 4.0, ("+1.00", "worse")),
        ("psnr", 20.001, 20.0, ("±0", "same")),
        ("psnr", None, 20.0, ("", "none")),
    ],
)
def test_changes_know_which_way_is_better(key, result, before, expected):
    assert change(METRIC[key], result, before) == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (245, "4 min 05 s"), (7620, "2 h 07 min"), (59.99, "1 min 00 s"), (3599.9, "1 h 00 min")]
)
def test_durations_as_people_read_them(seconds, text):
    assert duration(seconds) == text

"""What a wrong setting is answered with: key, value, what is allowed."""

from __future__ import annotations

import pytest

from dpscale.config.explain import allowed, known_keys
from dpscale.config.load import ConfigError, load


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finetune.lrr=3", "finetune.lrr = 3: there is no such setting; did you mean finetune.lr?"),
        ("refresh_interval=9", "refresh_interval = 9: there is no such setting; did you mean joint.refresh_interval?"),
        ("finetune.decoder.stps=2", "finetune.decoder.stps = 2: there is no such setting; did you mean finetune.decoder.steps?"),
        ("finetune.lr=2.0", "finetune.lr = 2.0: must be a number above 0 and at most 1"),
        ("finetune.lr=fast", "finetune.lr = 'fast': must be a number above 0 and at most 1"),
        ("joint.steps=0", "joint.steps = 0: must be a whole number from 1 to 100_000_000"),
        ("joint.refresh_interval=0", "joint.refresh_interval = 0: must be a whole number from 1 to 100_000_000 or 'auto'"),
        ("joint.refresh_interval=auto", "joint.refresh_interval = 'auto' needs joint.refresh_interval_rule: the run folder of a `dpscale search`"),
        ("preprocess.size=100", "preprocess.size = 100: must be a whole number from 32 to 2_048, a multiple of 8"),
        ("diffusion.preset=huge", "diffusion.preset = 'huge': must be one of tiny, sd21, sd15"),
        ("diffusion.pose_kinds=['x']", "diffusion.pose_kinds.0 = 'x': must be one of keypoints, iuv"),
        ("diffusion.stride=32", "diffusion.stride = 32 leaves gaps: it must be at most diffusion.window = 16"),
        ("ray.num_cpus=0", "ray.num_cpus = 0: must be a whole number at least 1 (or left out)"),
        ("finetune=3", "finetune = 3: must be a table"),
        ("performers=[{kind='vid'}]", "performers.0.kind = 'vid': must be one of pose2sim, rendered, video"),
        ("performers=[{name='a'}]", "performers.0.kind: must be one of pose2sim, rendered, video"),
        ("performers=[{kind='video',name='a'}]", "performers.0.path: is missing; give it a text"),
        ("performers=[{kind='rendered',name='a',performer_seed=1,num_frame=3}]", "did you mean performers.0.num_frames?"),
        ("performers=[{kind='pose2sim',name='../x'}]", "performers.0.name = '../x': must be a text of the form"),
        ("preprocess.keypoints.kind=openpose", "preprocess.keypoints.kind = 'openpose': must be one of blazepose, rtmpose"),
        ("preprocess.keypoints=3", "preprocess.keypoints = 3: must be a table whose kind is one of blazepose, rtmpose"),
        ("run.name=a/b", "run.name = 'a/b': must be a text of the form"),
        ("videos=[{performer='x'}]", "videos: no performer is named 'x'"),
    ],
)
def test_the_message_names_key_value_and_what_is_allowed(override: str, message: str):
    with pytest.raises(ConfigError) as raised:
        load(None, [override])
    assert message in str(raised.value)


def test_every_wrong_key_has_its_line():
    with pytest.raises(ConfigError) as raised:
        load(None, ["finetune.lr=2", "joint.refresh_interval=no", "x=1"])
    assert len(str(raised.value).splitlines()) == 3


def test_names_used_twice_are_refused():
    with pytest.raises(ConfigError, match="the name 'a' is used twice"):
        load(None, ["performers=[{kind='pose2sim',name='a'},{kind='pose2sim',name='a'}]"])


def test_every_setting_has_words_for_what_is_allowed():
    keys = list(known_keys())
    assert len(keys) > 90
    assert [key for key in keys if not allowed(key.split("."))] == []

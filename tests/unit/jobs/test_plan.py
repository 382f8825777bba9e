"""`dpscale plan` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.settings import CONFIGS


def test_the_real_size_model_is_planned_without_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "--gpu-gib", "80", "--gpu-gib", "48", "--json", str(tmp_path / "plan.json")]) == 0
    shown = capsys.readouterr().out
    assert "1.411 G parameters, 0.545 G trained" in shown
    assert "80 GiB: finetune.offload = none fits" in shown
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [level["offload"] for level in plan["levels"]] == ["none", "optimizer", "parameters", "nvme"]
    assert plan["advice"].keys() == {"48", "80"}
    assert plan["traced"]["assumed"] == ["unet", "vae", "image_encoder"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu-gib", "-1"], "--gpu-gib -1"),
        (["--set", "diffusion.weights=/nowhere"], "part 'unet' has no config.json"),
        (["--set", "preprocess.size=256"], "latent and conditions differ in size"),
    ],
)
def test_wrong_settings_end_with_status_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", str(CONFIGS / "sd21.toml"), *arguments]) == 2
    assert message in capsys.readouterr().err

"""`dpscale export` of finetuned performers, and docs/export.md's scripts as they stand there, run on the folders that it wrote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpscale.config.schema import Config, DiffusionConfig, FinetuneConfig, RunConfig
from dpscale.data.checkpoint import write_json
from dpscale.data.layout import RunLayout
from dpscale.data.shards import write_clip
from dpscale.data.types import BodyMotion, BodyShape, Clip, Pose
from dpscale.diffusion.conditions import Conditions, pose_maps
from dpscale.diffusion.encoders import to_unit
from dpscale.diffusion.refine import refine
from dpscale.diffusion.weights import PoseVideoModel, load_model
from dpscale.finetune.checkpoint import settings_hash
from dpscale.finetune.loop import TorchEngine
from dpscale.finetune.performer import finetune_performer
from dpscale.tracking.tracker import NullTracker
from jobs.cli import main
from tests.small_performer import small_run
from tests.unit.diffusion.published import LATENT, write_sd15, write_sd21

ROOT = Path(__file__).parents[2]
SIZE = 8 * LATENT
WRITE = {"sd21": write_sd21, "sd15": write_sd15}
OPTIONS = {"sd21": {"lora_rank": 4}, "sd15": {}}
"""Adapters for one, whole layers for the other."""


def script(name: str, folder: Path) -> Path:
    """Writes the script of that name in docs/export.md to a file."""
    found = re.search(rf"<!-- script: {re.escape(name)} -->\n```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.S)
    assert found is not None
    (folder / name).write_text(found.group(1))
    return folder / name


def start(path: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(path), *map(str, arguments)], capture_output=True, text=True, check=False, cwd=cwd)


def clip_for(model: PoseVideoModel) -> Clip:
    rng, total, num_train = np.random.default_rng(3), 9, 4
    frames = rng.integers(0, 256, (total, SIZE, SIZE, 3), dtype=np.uint8)
    keypoints = np.concatenate([rng.uniform(0, SIZE, (total, 18, 2)), np.ones((total, 18, 1))], -1).astype(np.float32)
    motion = BodyMotion(np.broadcast_to(np.eye(3, dtype=np.float32), (total, 4, 3, 3)).copy(), np.zeros((total, 3), np.float32), 40.0, (0.0, 0.0))
    flow, valid = np.zeros((total, SIZE, SIZE, 2), np.float32), np.zeros((total, SIZE, SIZE), bool)
    shape = BodyShape(np.zeros(8, np.float32), np.zeros(9, np.float32))
    pose = Pose(keypoints, rng.integers(0, 25, (total, SIZE, SIZE, 3), dtype=np.uint8), flow, valid, shape, motion)
    with torch.no_grad():
        latents = model.autoencoder.encode(to_unit(frames)).numpy()
    return Clip("ann", "main", 30.0, num_train, pose, frames, latents, model.embed_image(frames[0]))


def sampled(settings: DiffusionConfig, clip: Clip) -> np.ndarray:
    """dpscale's own first pass over the held-out frames, with the model that the settings name."""
    model = load_model(settings)
    maps = pose_maps(clip.pose.at(slice(clip.num_train, None)), settings.pose_kinds, model.denoiser.pose_encoder.resolution)
    conditions = Conditions({kind: m[None] for kind, m in maps.items()}, torch.from_numpy(model.embed_image(clip.frames[0]))[None, None])
    return model.decode(refine(model.denoiser, model.noise_schedule, conditions, None, 1.0, settings, seed=1))


def finetuned_run(preset: str, root: Path) -> tuple[Config, Clip]:
    """A run folder with one finetuned performer on a small checkpoint in the published format, and its config.json."""
    base = WRITE[preset](root / "base")
    diffusion = DiffusionConfig(
        preset=preset, weights=str(base), latent_size=LATENT, sampling_steps=5, guidance_scale=3.0, window=4, stride=2, window_batch=2
    )
    decoder = {"steps": 3, "lr": 1e-3, "batch_size": 2}
    finetune = FinetuneConfig(clip_frames=3, max_steps=4, lr=2e-2, decoder=decoder, **OPTIONS[preset])
    config = Config(run=RunConfig(name="run", root=root), diffusion=diffusion, finetune=finetune)
    layout, model = RunLayout.of(config), load_model(diffusion)
    clip = clip_for(model)
    write_clip(layout.shard("ann", "main"), clip)
    settings = settings_hash(config, layout.shard("ann", "main"))
    finetune_performer(config, layout, "ann", model, torch_engine, NullTracker(), settings)
    write_json(layout.resolved_config, json.loads(config.model_dump_json()))
    return config, clip


def torch_engine(part, lr, state):
    return TorchEngine(part.parameters, part.groups(0.01), lr, state)


@pytest.mark.parametrize("preset", ["sd21", "sd15"])
def test_a_stock_script_samples_the_performers_frames(preset: str, tmp_path: Path):
    config, clip = finetuned_run(preset, tmp_path)
    run, folder = tmp_path / "run", tmp_path / "ann"
    assert main(["export", str(run / "config.json"), "--performer", "ann", "--to", str(folder)]) == 0
    sample, inputs = script("sample.py", tmp_path), script("inputs.py", tmp_path)
    assert "dpscale." not in "".join(line for line in sample.read_text().splitlines() if "import" in line)
    written = start(inputs, folder, run / "shards/performer=ann/clip=main", tmp_path / "inputs.npz", cwd=ROOT)
    assert written.returncode == 0, written.stderr
    done = start(sample, folder, tmp_path / "inputs.npz", tmp_path / "frames", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "frames").glob("*.png"))]).astype(int)
    exported = sampled(config.diffusion.model_copy(update={"weights": str(folder)}), clip)
    assert found.shape == exported.shape == (5, SIZE, SIZE, 3)
    assert np.abs(found - exported).max() <= 1  # another batch size changes the last bits of sums
    assert found.std() > 2, "a picture, not one colour"
    assert np.abs(found - sampled(config.diffusion, clip)).mean() > 3, "the base makes other frames"
    missing = start(sample, tmp_path / "nowhere", tmp_path / "inputs.npz", tmp_path / "none", cwd=tmp_path)
    assert missing.returncode != 0
    assert "FileNotFoundError" in missing.stderr


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_tiny_is_exported_for_dpscale_itself(tmp_path: Path, lora_rank: int | None, capsys: pytest.CaptureFixture[str]):
    config, layout, model = small_run(tmp_path, ("ann", "zoe"), lora_rank=lora_rank)
    settings = settings_hash(config, layout.shard("ann", "main"))
    finetune_performer(config, layout, "ann", model, torch_engine, NullTracker(), settings)
    write_json(layout.resolved_config, json.loads(config.model_dump_json()))
    command = ["export", str(layout.resolved_config), "--performer"]
    assert main([*command, "ann", "--to", str(tmp_path / "out")]) == 0
    assert f"--set diffusion.weights={tmp_path / 'out'}" in capsys.readouterr().out
    exported = load_model(config.diffusion.model_copy(update={"weights": str(tmp_path / "out")}))
    moved = [name for name, t in exported.denoiser.state_dict().items() if not torch.equal(t, model.denoiser.state_dict()[name])]
    assert any(".temp_convs." in name for name in moved)
    provenance = json.loads((tmp_path / "out" / "model_card.json").read_text())["provenance"]
    assert (provenance["performer"], provenance["finetune"]["lora_rank"]) == ("ann", lora_rank)
    refused = [
        (["ann", "--to", str(tmp_path / "out")], "is there and not an empty folder"),
        (["zoe", "--to", str(tmp_path / "zoe")], "finetune performer 'zoe' first"),
        (["../ann", "--to", str(tmp_path / "zoe")], "--performer ../ann: the name '../ann' may hold"),
        (["ann", "--to", str(tmp_path / "zoe"), "--set", "finetune.lr=0.5"], "holds results of other settings"),
    ]
    for arguments, message in refused:
        assert main([*command, *arguments]) == 2
        assert message in capsys.readouterr().err
    next((tmp_path / "base" / "vae").glob("*.safetensors")).write_bytes(b"another base")
    assert main([*command, "ann", "--to", str(tmp_path / "zoe")]) == 2
    assert "other settings, base weights or footage" in capsys.readouterr().err
    assert not (tmp_path / "zoe").exists()

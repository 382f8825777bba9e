from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from dpscale.config.schema import FinetuneConfig
from dpscale.finetune.checkpoint import TrainingState, base_digest, load_state, remove_states, save_state, settings_hash
from tests.small_performer import small_config, small_model


def state(step: int) -> TrainingState:
    return TrainingState(step, {"parameter.a": torch.full((2,), float(step))}, tuple(0.1 * i for i in range(step)), seconds=1.5 * step)


def test_newest_state_comes_back_whole(tmp_path: Path):
    for step in (2, 4, 10):
        save_state(tmp_path, "denoiser", "hash", state(step))
    save_state(tmp_path, "decoder", "hash", state(1))
    found = load_state(tmp_path, "denoiser", "hash")
    assert found is not None
    assert (found.step, found.losses, found.seconds) == (10, state(10).losses, 15.0)
    assert torch.equal(found.tensors["parameter.a"], state(10).tensors["parameter.a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoder-00000001", "denoiser-00000010"]


def test_state_of_other_settings_or_half_written_is_not_used(tmp_path: Path):
    save_state(tmp_path, "denoiser", "old", state(3))
    assert load_state(tmp_path, "denoiser", "new") is None
    (tmp_path / ".tmp-0-denoiser-00000009").mkdir()
    (tmp_path / "denoiser-00000009").mkdir()
    found = load_state(tmp_path, "denoiser", "old")
    assert found is not None
    assert found.step == 3


def test_remove_leaves_results_only(tmp_path: Path):
    save_state(tmp_path, "denoiser", "hash", state(1))
    (tmp_path / "denoiser.safetensors").write_bytes(b"result")
    remove_states(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["denoiser.safetensors"]


def test_hash_follows_what_changes_the_result(tmp_path: Path):
    small_model().save(tmp_path / "base")
    shard = tmp_path / "shard"
    config = small_config(tmp_path, tmp_path / "base")

    def changed(**finetune: object) -> str:
        return settings_hash(config.model_copy(update={"finetune": FinetuneConfig(**config.finetune.model_dump() | finetune)}), shard)

    same = settings_hash(config, shard)
    assert changed() == changed(max_concurrent=7, checkpoint_every=3, max_failures=9, gradient_checkpointing=True, validate_every=2) == same
    assert changed(cache_gib=0) == same
    others = [{"lr": 1e-4}, {"num_workers": 2}, {"trainable": "all"}, {"ema_decay": 0.9}, {"ema_decay": 0.99}, {"precision": "bf16"}]
    others += [{"lora_rank": 4}, {"lora_rank": 8}, {"batch_clips": 2}, {"batch_clips": 2, "num_workers": 2}, {"lr_schedule": "cosine"}]
    assert len({same, *(changed(**other) for other in others)}) == 1 + len(others)
    schedule = next((tmp_path / "base" / "scheduler").glob("*.json"))
    schedule.write_text(json.dumps(json.loads(schedule.read_text()) | {"num_train_timesteps": 500}))
    assert settings_hash(config, shard) != same, "another noise schedule is another base"
    small_model().save(tmp_path / "base")
    assert settings_hash(config, shard) == same
    small_model(seed=1).save(tmp_path / "base")
    assert settings_hash(config, shard) != same


def test_options_that_are_off_leave_the_hash_of_earlier_results(tmp_path: Path):
    small_model().save(tmp_path / "base")
    config = small_config(tmp_path, tmp_path / "base")
    settings = config.finetune.model_dump(mode="json")
    counted = ["trainable", "epochs", "max_steps", "lr", "weight_decay", "clip_frames", "condition_dropout", "loss", "body_weight", "decoder"]
    counted += ["offload", "num_workers"]
    parts = {
        "finetune": {name: settings[name] for name in counted},
        "pose_kinds": config.diffusion.pose_kinds,
        "seed": config.run.seed,
        "torch_threads": config.ray.torch_threads,
        "weights": base_digest(config.diffusion),
        "clip": None,
    }
    assert settings_hash(config, tmp_path / "shard") == hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

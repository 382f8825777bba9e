"""Resumable states of one performer's training phases (denoiser, decoder), in its finetune folder."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from dpscale.config.schema import Config, DiffusionConfig
from dpscale.data.checkpoint import commit_folder, marker_of
from dpscale.diffusion.parts import named_parts_digest


@dataclass(frozen=True)
class TrainingState:
    """Where a phase stands after `step` updates."""

    step: int
    tensors: dict[str, Tensor] | None
    """Engine.state(); None before the first step."""
    losses: tuple[float, ...]
    """Of every step so far."""
    seconds: float
    """Time in training so far, over all sittings."""


_WITHOUT_EFFECT = {
    "max_concurrent", "max_per_tenant", "checkpoint_every", "max_failures", "nvme_path", "gradient_checkpointing", "validate_every", "cache_gib",
}  # fmt: skip
"""Finetune settings that change when and where work is done, but not its result."""
_OFF = {"lr_schedule": "constant", "ema_decay": None, "precision": "fp32", "lora_rank": None, "batch_clips": None}
"""Options that count only where they are used, so that results made without them keep their hash."""


def settings_hash(config: Config, shard: Path) -> str:
    """Of everything that the result follows from: settings, seed, base weights and training clip. Equal hash: the result may be kept."""
    finetune = config.finetune.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    parts = {
        "finetune": {name: value for name, value in finetune.items() if name not in _OFF or value != _OFF[name]},
        "pose_kinds": config.diffusion.pose_kinds,
        "seed": config.run.seed,
        "torch_threads": config.ray.torch_threads,
        "weights": base_digest(config.diffusion),
        "clip": marker_of(shard),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def base_digest(diffusion: DiffusionConfig) -> str:
    """Of the base's weights and configurations, its noise schedule among them; for a hub id, whose files may lie elsewhere, the id itself."""
    named = named_parts_digest(diffusion, tuple(type(diffusion.parts).model_fields))
    if diffusion.weights is not None and not Path(diffusion.weights).is_dir():
        return diffusion.weights + (f" {named}" if named else "")
    digest = hashlib.sha256(named.encode())
    with resources.as_file(resources.files("dpscale.diffusion")) as package:
        folder = package / diffusion.preset if diffusion.weights is None else Path(diffusion.weights)
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json")):
            with path.open("rb") as file:
                digest.update(path.relative_to(folder).as_posix().encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def save_state(folder: Path, phase: str, settings: str, state: TrainingState) -> None:
    """Commits `state` as `folder`/<phase>-<step>, then removes the phase's older ones: at every moment one whole state exists."""
    target = folder / f"{phase}-{state.step:08d}"
    marker = {"settings": settings, "step": state.step, "losses": state.losses, "seconds": state.seconds}
    commit_folder(target, lambda path: save_file(state.tensors, str(path / "state.safetensors")), marker)
    for other in _states(folder, phase):
        if other != target:
            shutil.rmtree(other)


def load_state(folder: Path, phase: str, settings: str) -> TrainingState | None:
    """The newest whole state of a phase that ran under the same settings, or None."""
    for path in reversed(_states(folder, phase)):
        marker = marker_of(path)
        if marker is not None and marker["settings"] == settings:
            tensors = load_file(str(path / "state.safetensors"))
            return TrainingState(marker["step"], tensors, tuple(marker["losses"]), marker["seconds"])
    return None


def remove_states(folder: Path) -> None:
    """Removes every state of every phase, and what a killed process left half written."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _states(folder: Path, phase: str) -> list[Path]:
    pattern = re.compile(rf"{re.escape(phase)}-\d{{8}}")
    return sorted(path for path in folder.glob(f"{phase}-*") if pattern.fullmatch(path.name))

"""A refresh under way, on disk: a worker that dies costs the denoising since the last save, and changes no bit of the result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpscale.data.checkpoint import commit_folder, marker_of

if TYPE_CHECKING:
    from dpscale.diffusion.refine import Progress  # diffusers is heavy, and field workers import this module too

_MEMORY = "memory."


@dataclass(frozen=True)
class UnfinishedRefresh:
    """The newest progress of one refresh below `folder`; the one before is removed after it is committed, so a whole one always exists."""

    folder: Path
    fingerprint: str
    number: int

    def load(self, device: torch.device | str = "cpu") -> Progress | None:
        """The progress that was saved last under this fingerprint, equal to the bit, or None."""
        from dpscale.diffusion.refine import Progress

        saved = self._saved()
        if not saved:
            return None
        marker, tensors = marker_of(saved[-1]), load_file(saved[-1] / "progress.safetensors")
        # Copied into memory that torch allocated: tensors read from a file are aligned differently, and sums may depend on that.
        tensors = {name: torch.empty_like(tensor, device=device).copy_(tensor) for name, tensor in tensors.items()}
        memory = {name.removeprefix(_MEMORY): tensor for name, tensor in tensors.items() if name.startswith(_MEMORY)}
        return Progress(tensors["latents"], memory, marker["step"], marker["window"], tensors.get("pending"))

    def save(self, progress: Progress) -> None:
        tensors: dict[str, Tensor] = {"latents": progress.latents, **{_MEMORY + name: value for name, value in progress.memory.items()}}
        if progress.pending is not None:
            tensors["pending"] = progress.pending
        folder = self.folder / f"{self.number:05d}-{progress.step:05d}-{progress.window:07d}"
        marker = {"fingerprint": self.fingerprint, "step": progress.step, "window": progress.window}
        commit_folder(folder, lambda path: save_file(tensors, path / "progress.safetensors"), marker)
        for other in self.folder.glob("[0-9]*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)

    def saves_every(self, seconds: float) -> Callable[[Progress], None]:
        """`save` for those calls that come `seconds` or more after the last one, or after now."""
        last = time.monotonic()

        def save(progress: Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= seconds:
                self.save(progress)
                last = time.monotonic()

        return save

    def remove(self) -> None:
        """The refresh is done, or to be forgotten."""
        for folder in self.folder.glob(f"{self.number:05d}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _saved(self) -> list[Path]:
        """Whole ones of this refresh, oldest first."""
        folders = sorted(self.folder.glob(f"{self.number:05d}-*"))
        return [folder for folder in folders if (marker_of(folder) or {}).get("fingerprint") == self.fingerprint]

"""What the joint optimisation of one video keeps on disk, below its folder:

    checkpoints/<steps>-<refreshes>/   state.safetensors, marker      field and Adam
    requests/<number>/                 guidance.npy, marker           V_s that a refresh is made from, until its answer is in force
    refreshes/<number>/                frames.npy, marker             V_p of every finished refresh
    unfinished/<number>-<step>-<window>/  progress.safetensors, marker  a refresh under way (joint.unfinished), until it is committed
    inputs/                            see inputs.py
    interval.json                      a predicted refresh interval (search.prediction)
    result/                            frames.npz, history.json, marker

Every folder is whole or absent, and its marker holds the fingerprint of the settings that it follows from: one under another
fingerprint counts as absent.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import load_file
from torch import Tensor

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.array_files import Frames, give_back, mapped, save_array, write_frames, write_videos
from dpscale.data.checkpoint import commit_folder, marker_of, write_json
from dpscale.data.layout import RunLayout
from dpscale.data.tensor_file import save_tensors
from dpscale.field.adam import new_moment
from dpscale.field.hash_grid_fused import as_table
from dpscale.joint.state import History, JointState, RefreshRequest, new_state
from dpscale.joint.unfinished import UnfinishedRefresh
from dpscale.joint.video import VideoTask, fingerprint

_ADAM = ("exp_avg", "exp_avg_sq")
_KEPT = 2
"""Checkpoints that stay: the newest and one to fall back on."""


@dataclass(frozen=True)
class VideoStore:
    """The folder of one video, under one fingerprint."""

    folder: Path
    fingerprint: str

    @classmethod
    def of(cls, config: Config, layout: RunLayout, video: VideoConfig) -> VideoStore:
        """Under the fingerprint of the video's present settings and inputs."""
        return cls(layout.joint(video), fingerprint(config, layout, video))

    # ------------------------------------------------------------------------------ refreshes

    def refresh(self, number: int) -> UInt8[np.ndarray, "N H W 3"] | None:
        """V_p of a finished refresh, mapped, or None."""
        folder = self.folder / "refreshes" / f"{number:05d}"
        return mapped(folder / "frames.npy") if self._marker(folder) is not None else None

    def refresh_s(self, number: int) -> float | None:
        """How long a finished refresh took, or None."""
        marker = self._marker(self.folder / "refreshes" / f"{number:05d}")
        return None if marker is None else marker["seconds"]

    def keeps(self, refresh: Callable[[RefreshRequest], np.ndarray]) -> Callable[[RefreshRequest], np.ndarray]:
        """`refresh` that looks its answer up here first, and keeps it before giving it: asked twice, it works once."""

        def answer(request: RefreshRequest) -> UInt8[np.ndarray, "N H W 3"]:
            frames = self.refresh(request.refresh)
            if frames is None:
                started = time.monotonic()
                frames = refresh(request)
                self.put_refresh(request.refresh, frames, time.monotonic() - started)
                for read in (frames, request.guidance):
                    give_back(read)
                frames = self.refresh(request.refresh)
            return frames

        return answer

    def put_refresh(self, number: int, frames: UInt8[np.ndarray, "N H W 3"], seconds: float) -> None:
        folder = self.folder / "refreshes" / f"{number:05d}"
        self._commit(folder, lambda path: save_array(path / "frames.npy", frames), seconds=seconds)
        self.unfinished(number).remove()

    def unfinished(self, number: int) -> UnfinishedRefresh:
        """Where the progress of a refresh is kept while it is made."""
        return UnfinishedRefresh(self.folder / "unfinished", self.fingerprint, number)

    def keep_guidance(self, number: int, shape: tuple[int, int, int], frames: Frames) -> UInt8[np.ndarray, "N H W 3"]:
        """Commits V_s for a refresh, frame by frame, and gives it back mapped."""
        self._commit(self._request(number), lambda path: write_frames(path / "guidance.npy", shape, frames))
        return self._guidance(number)

    def _request(self, number: int) -> Path:
        return self.folder / "requests" / f"{number:05d}"

    def _guidance(self, number: int) -> UInt8[np.ndarray, "N H W 3"]:
        return mapped(self._request(number) / "guidance.npy")

    # ---------------------------------------------------------------------------- checkpoints

    def save(self, state: JointState) -> None:
        """Commits the state, then removes the older ones: at every moment a whole one exists."""
        request = None
        if state.request is not None:
            request = {k: v for k, v in vars(state.request).items() if k != "guidance"}
            self.keep_guidance(state.request.refresh, state.request.guidance.shape[:3], state.request.guidance)
        self._commit(
            self.folder / "checkpoints" / state_name(state),
            lambda path: save_tensors(path / "state.safetensors", _tensors(state)),
            step=state.step,
            optimizer_steps=state.optimizer_steps,
            num_refreshes=state.num_refreshes,
            request=request,
            history=dataclasses.asdict(state.history),
        )
        for old in self._checkpoints()[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        self._remove_requests(before=min(marker_of(path)["num_refreshes"] for path in self._checkpoints()))

    def load(self, video: VideoTask, device: torch.device | str = "cpu") -> JointState | None:
        """The newest state, equal to the one saved to the last bit, or None."""
        newest = self.newest()
        if newest is None:
            return None
        marker, tensors = marker_of(newest), load_file(newest / "state.safetensors")
        state = new_state(video, device, self.keep_guidance)
        state.step, state.optimizer_steps, state.num_refreshes = marker["step"], marker["optimizer_steps"], marker["num_refreshes"]
        state.history = History(**marker["history"])
        _restore(state, tensors)
        if state.num_refreshes > 0:
            state.targets = torch.from_numpy(self.refresh(state.num_refreshes - 1))
        if marker["request"] is not None:
            state.request = RefreshRequest(guidance=self._guidance(marker["request"]["refresh"]), **marker["request"])
        return state

    def request(self) -> RefreshRequest | None:
        """The refresh that the newest state waits for, or None."""
        newest = self.newest()
        request = None if newest is None else marker_of(newest)["request"]
        if request is None:
            return None
        return RefreshRequest(guidance=self._guidance(request["refresh"]), **request)

    def last_refresh(self) -> dict[str, float] | None:
        """The history's entry of the newest refresh whose answer the newest state has, or None."""
        newest = self.newest()
        refreshes = [] if newest is None else marker_of(newest)["history"]["refreshes"]
        return refreshes[-1] if refreshes else None

    def newest(self) -> Path | None:
        """The folder of the newest state, or None."""
        states = self._checkpoints()
        return states[-1] if states else None

    # ---------------------------------------------------------------------------------- result

    def put_result(self, state: JointState, video: VideoTask) -> None:
        """Commits the finished video: `ivr_opt` (the result, by whatever method), `wo_opt` (the first pass), `field` (V_s at the end,
        where there is one)."""
        frames: dict[str, Frames] = {"ivr_opt": state.targets.numpy(), "wo_opt": self.refresh(0)}
        if video.config.joint.has_field:
            frames["field"] = state.field.render()

        def write(path: Path) -> None:
            write_videos(path / "frames.npz", video.shape, frames)
            write_json(path / "history.json", dataclasses.asdict(state.history))

        self._commit(self.folder / "result", write)

    def has_result(self) -> bool:
        return self._marker(self.folder / "result") is not None

    # ------------------------------------------------------------------------------------------

    def remove_leftovers(self) -> None:
        """Removes what is of another fingerprint or was left half written. Nobody else may be working in the folder."""
        for path in [*self.folder.glob("*/*"), self.folder / "result", *self.folder.glob(".tmp-*")]:
            inside_result = path.parent.name == "result" or path.parent.name.startswith(".tmp-")
            if path.is_dir() and not inside_result and self._marker(path) is None:
                shutil.rmtree(path)

    def _remove_requests(self, before: int) -> None:
        """Of refreshes whose answers are in force in every state that is kept."""
        for path in (self.folder / "requests").glob("[0-9]*"):
            if int(path.name) < before:
                shutil.rmtree(path, ignore_errors=True)

    def _marker(self, folder: Path) -> dict | None:
        marker = marker_of(folder)
        return marker if marker is not None and marker["fingerprint"] == self.fingerprint else None

    def _checkpoints(self) -> list[Path]:
        """Whole states under this fingerprint, oldest first."""
        return [path for path in sorted((self.folder / "checkpoints").glob("[0-9]*")) if self._marker(path) is not None]

    def _commit(self, folder: Path, write, **marker) -> None:
        # The content follows from fingerprint and name: what is there already, from a worker that was given up too early, is the same.
        if self._marker(folder) is None:
            commit_folder(folder, write, {"fingerprint": self.fingerprint, **marker})


def state_name(state: JointState) -> str:
    """Name of a state's folder: in the order in which states follow each other, and equal only for equal states."""
    return f"{state.optimizer_steps:09d}-{state.num_refreshes:05d}"


def _tensors(state: JointState) -> dict[str, Tensor]:
    tensors = {f"field.{name}": parameter.detach() for name, parameter in state.field.named_parameters()}
    for name, parameter in state.field.named_parameters():
        moments = state.optimizer.state.get(parameter, {})
        tensors |= {f"{key}.{name}": moments[key] for key in _ADAM if key in moments}
    return tensors


@torch.no_grad()
def _restore(state: JointState, tensors: dict[str, Tensor]) -> None:
    """Copies into memory that torch allocated: tensors read from a file are aligned differently, and sums may depend on that."""
    for name, parameter in state.field.named_parameters():
        parameter.copy_(as_table(tensors[f"field.{name}"], parameter))
        if f"exp_avg.{name}" in tensors:
            moments = {key: new_moment(parameter).copy_(as_table(tensors[f"{key}.{name}"], parameter)) for key in _ADAM}
            state.optimizer.state[parameter] = {"step": torch.tensor(float(state.optimizer_steps), device=parameter.device), **moments}

"""Where the joint optimisation of one video stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from dpscale.data.seeds import derive
from dpscale.field.adam import optimizer_of
from dpscale.field.layers import Layers
from dpscale.field.loss import HumanFlow, Losses
from dpscale.field.video_field import VideoField
from dpscale.joint import plan
from dpscale.joint.video import VideoTask

LOG_EVERY = 20
"""Steps between losses that are kept: reading a loss waits for the device."""


KeepFrames = Callable[[int, tuple[int, int, int], Iterable[UInt8[np.ndarray, "H W 3"]]], UInt8[np.ndarray, "N H W 3"]]
"""Number of a refresh, (N, H, W), V_s frame by frame -> V_s, wherever it is kept."""


def in_memory(refresh: int, shape: tuple[int, int, int], frames: Iterable[UInt8[np.ndarray, "H W 3"]]) -> UInt8[np.ndarray, "N H W 3"]:
    return np.stack(list(frames))


@dataclass(frozen=True)
class RefreshRequest:
    """V_p <- E_dec(D_p(E_enc(V_s), P)), to be done."""

    refresh: int
    """0 is the first pass."""
    step: int
    strength: float
    guidance: UInt8[np.ndarray, "N H W 3"]
    """V_s. Of a method without representation: the newest V_p, and I_ref in every frame before there is one."""


@dataclass
class History:
    """What happened, for people: times differ from run to run, everything else repeats."""

    losses: list[dict[str, float]] = dataclasses.field(default_factory=list)
    refreshes: list[dict[str, float]] = dataclasses.field(default_factory=list)
    field_s: float = 0.0
    stopped_at: int | None = None
    """The step at which V_s and V_p agreed, so that its refresh is the last; None: they did not, or nobody asked."""

    def add_losses(self, step: int, losses: Losses) -> None:
        if step % LOG_EVERY == 0:
            values = {"loss": losses.total, "loss_reconstruction": losses.reconstruction, "loss_flow": losses.flow}
            self.losses.append({"step": step, **{name: float(value) for name, value in values.items()}})


@dataclass(frozen=True)
class FieldInputs:
    """What every field step of a video reads."""

    reference: UInt8[Tensor, "H W 3"]
    """On the field's device."""
    human_flow: HumanFlow
    """In host memory or mapped from disk."""

    @classmethod
    def of(cls, video: VideoTask, device: torch.device | str) -> FieldInputs:
        return cls(torch.from_numpy(video.reference.copy()).to(device), video.human_flow())


@dataclass
class JointState:
    """Everything that changes while a video is optimised. Random numbers are no part of it: they derive from (seed, video, step)."""

    field: VideoField
    optimizer: torch.optim.Adam
    inputs: FieldInputs
    step: int
    """Finished steps; -warm_up_steps .. 0 is the warm-up, 1 .. steps is Algorithm 1."""
    optimizer_steps: int = 0
    """Updates so far, those of the warm-up included."""
    num_refreshes: int = 0
    """Finished diffusion passes, the first included."""
    targets: UInt8[Tensor, "N H W 3"] | None = None
    """V_p, in host memory or mapped from disk; None before the first pass."""
    request: RefreshRequest | None = None
    """The refresh that is due. Whether steps may be taken before it is answered says loop.is_waiting."""
    history: History = dataclasses.field(default_factory=History)
    keep: KeepFrames = in_memory
    """Where V_s is put for a refresh."""

    @property
    def num_bytes(self) -> int:
        """Of the field and its optimiser, on their device; targets and inputs lie in files."""
        moments = [value for state in self.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
        return sum(t.nbytes for t in (*self.field.parameters(), *self.field.buffers(), *moments))

    def request_refresh(self, video: VideoTask, step: int) -> None:
        joint = video.config.joint.at(step)
        guidance = self.keep(self.num_refreshes, video.shape, self._shown(video))
        strength = plan.strength(joint, self.num_refreshes, last=step == self.history.stopped_at)
        self.request = RefreshRequest(self.num_refreshes, step, strength, guidance)

    def _shown(self, video: VideoTask) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        if video.config.joint.has_field:
            return self.field.render()
        return repeat(video.reference, len(video.pose)) if self.targets is None else (frame.numpy() for frame in self.targets)

    def renew_targets(self, targets: UInt8[np.ndarray, "N H W 3"], seconds: float) -> None:
        """Answers the request: the next steps fit the field to `targets`."""
        assert self.request is not None, "nobody asked for a refresh"
        request, used_from = self.request, self.step + 1
        entry = {"refresh": request.refresh, "step": request.step, "strength": request.strength, "seconds": round(seconds, 3), "used_from": used_from}
        self.history.refreshes.append(entry)
        self.targets = torch.from_numpy(targets if targets.flags.writeable else targets.copy())
        self.num_refreshes += 1
        self.request = None


def new_state(video: VideoTask, device: torch.device | str = "cpu", keep: KeepFrames = in_memory) -> JointState:
    """Algorithm 1 before its first line; phi follows from the run's seed and the video's name."""
    config = video.config
    generator = torch.Generator().manual_seed(derive(config.run.seed, "field", video.name))
    video_field = VideoField(config.field, *video.shape, generator, Layers.of(config.field, video.pose)).to(device)
    optimizer = optimizer_of(video_field, config.field)
    return JointState(video_field, optimizer, FieldInputs.of(video, device), step=-config.joint.warm_up_steps, keep=keep)

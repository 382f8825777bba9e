"""Where the joint optimisation of one video stands."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from dpscale.data.seeds import derive
from dpscale.field.adam import optimizer_of
from dpscale.field.loss import HumanFlow, Losses
from dpscale.field.video_field import VideoField
from dpscale.joint import plan
from dpscale.joint.video import VideoTask

LOG_EVERY = 20
"""Steps between losses that are kept: reading a loss waits for the device."""


@dataclass(frozen=True)
class RefreshRequest:
    """V_p <- E_dec(D_p(E_enc(V_s), P)), to be done."""

    refresh: int
    """0 is the first pass."""
    step: int
    strength: float
    guidance: UInt8[np.ndarray, "N H W 3"]
    """V_s."""


@dataclass
class History:
    """What happened, for people: times differ from run to run, everything else repeats."""

    losses: list[dict[str, float]] = dataclasses.field(default_factory=list)
    refreshes: list[dict[str, float]] = dataclasses.field(default_factory=list)
    field_s: float = 0.0

    def add_losses(self, step: int, losses: Losses) -> None:
        if step % LOG_EVERY == 0:
            values = {"loss": losses.total, "loss_reconstruction": losses.reconstruction, "loss_flow": losses.flow}
            self.losses.append({"step": step, **{name: float(value) for name, value in values.items()}})


@dataclass(frozen=True)
class FieldInputs:
    """What every field step of a video reads, on the field's device."""

    reference: UInt8[Tensor, "H W 3"]
    human_flow: HumanFlow

    @classmethod
    def of(cls, video: VideoTask, device: torch.device | str) -> FieldInputs:
        flow, valid, body = (torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in (video.pose.flow, video.pose.flow_valid, video.body))
        human_flow = HumanFlow.of(flow.float(), valid, body, video.config.joint.background_flow)
        return cls(torch.from_numpy(video.reference.copy()).to(device), human_flow)


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
    """V_p; None before the first pass."""
    request: RefreshRequest | None = None
    """The refresh without which no further step can be taken."""
    history: History = dataclasses.field(default_factory=History)

    def request_refresh(self, video: VideoTask, step: int, guidance: UInt8[np.ndarray, "N H W 3"]) -> None:
        self.request = RefreshRequest(self.num_refreshes, step, plan.strength(video.config.joint, self.num_refreshes), guidance)

    def renew_targets(self, targets: UInt8[np.ndarray, "N H W 3"], seconds: float) -> None:
        """Answers the request: the next steps fit the field to `targets`."""
        assert self.request is not None, "nobody asked for a refresh"
        entry = {"refresh": self.request.refresh, "step": self.request.step, "strength": self.request.strength, "seconds": round(seconds, 3)}
        self.history.refreshes.append(entry)
        self.targets = torch.from_numpy(targets.copy()).to(self.inputs.reference.device)
        self.num_refreshes += 1
        self.request = None


def new_state(video: VideoTask, device: torch.device | str = "cpu") -> JointState:
    """Algorithm 1 before its first line; phi follows from the run's seed and the video's name."""
    config = video.config
    generator = torch.Generator().manual_seed(derive(config.run.seed, "field", video.name))
    video_field = VideoField(config.field, *video.shape, generator).to(device)
    return JointState(video_field, optimizer_of(video_field, config.field), FieldInputs.of(video, device), step=-config.joint.warm_up_steps)

"""Settings of the joint optimisation of a video and of its scheduling. Part of `schema.py`, which exports them."""

from __future__ import annotations

import math
from collections import ChainMap
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dpscale.config.section import Section

_OFF = {"method": "ivr", "stop_l1": None, "stop_checks": 3, "refresh_overlap": 0, "flow_weight_to": None, "flow_rise_steps": 0, "changes": []}
"""Settings that count only where they are used, so that videos made without them keep their fingerprint."""

Interval = Annotated[int, Field(ge=1, le=100_000_000)]
"""Field steps between two refreshes."""


class JointChange(Section):
    """Settings that are others from a field step on; those that are left out stay as they were."""

    from_step: int = Field(ge=1, le=100_000_000, description="The first field step with the new settings; of refreshes the step that asks for them.")
    flow_weight: float | None = Field(default=None, ge=0, le=1000)
    flow_weight_to: float | None = Field(default=None, ge=0, le=1000)
    strength_from: float | None = Field(default=None, gt=0, le=1)
    strength_to: float | None = Field(default=None, gt=0, le=1)


class JointConfig(Section):
    """Algorithm 1."""

    method: Literal["ivr", "none", "image", "noisy_image"] = Field(
        default="ivr",
        description="ivr: the paper's. Its ablations (S, Table 2): none, one pass from noise; image, V_p itself is encoded and refined; "
        "noisy_image, likewise with the noise added to the picture before it is encoded.",
    )
    steps: int = Field(default=10_000, ge=1, le=100_000_000, description="Field steps (paper: 10,000).")
    refresh_interval: Interval | Literal["auto"] = Field(
        default=2000, description="Field steps between refreshes (paper: 2000); auto: predicted for each video by refresh_interval_rule (ours)."
    )
    refresh_interval_rule: Path | None = Field(
        default=None, description="For refresh_interval = auto: run folder of a `dpscale search` of three videos or more, or its search/rule.json."
    )
    refresh_overlap: int = Field(
        default=0, ge=0, le=100_000_000, description="Field steps that go on against the old targets while a refresh runs (paper: 0)."
    )
    warm_up_steps: int = Field(default=500, ge=0, le=1_000_000, description="Steps that fit the field to I_ref first (ours).")
    flow_weight: float = Field(default=1.0, ge=0, le=1000, description="lambda of Eq. 6 (ours: 1.0).")
    flow_weight_to: float | None = Field(
        default=None, ge=0, le=1000, description="lambda at the last step, reached linearly from flow_weight; none: constant (paper)."
    )
    flow_rise_steps: int = Field(default=0, ge=0, le=100_000_000, description="First steps over which lambda grows linearly from 0 (ours).")
    background_flow: bool = Field(default=False, description="Take the flow off the body as zero (static camera) instead of leaving it out.")
    first_strength: float = Field(default=1.0, gt=0, le=1, description="Noise strength of the first pass (ours).")
    strength_from: float = Field(default=0.7, gt=0, le=1, description="Noise strength of the first refresh, falling linearly (ours).")
    strength_to: float = Field(default=0.3, gt=0, le=1, description="Noise strength of the last refresh (ours).")
    stop_l1: float | None = Field(
        default=None, gt=0, le=255, description="Ends early where |V_s - V_p| stays below this (grey levels), with the last refresh; none: never."
    )
    stop_checks: int = Field(default=3, ge=1, le=10_000, description="Logged losses in a row that must be below stop_l1.")

    changes: tuple[JointChange, ...] = Field(
        default=(), description="Settings that change on the way, in order of from_step: what a search with stopping.kind = pbt finds (paper: none)."
    )

    @model_validator(mode="after")
    def _changes_are_in_order(self) -> JointConfig:
        steps = [change.from_step for change in self.changes]
        if steps != sorted(set(steps)) or (steps and steps[-1] > self.steps):
            raise ValueError(f"joint.changes: from_step must rise from each to the next and be at most joint.steps = {self.steps}, not {steps}")
        return self

    @model_validator(mode="after")
    def _targets_come_before_the_next_refresh(self) -> JointConfig:
        longest, name = (self.steps, "steps") if self.refresh_interval == "auto" else (self.refresh_interval, "refresh_interval")
        if self.refresh_overlap >= longest:
            raise ValueError(
                f"joint.refresh_overlap = {self.refresh_overlap} must be below joint.{name} = {longest}: a refresh ends before the next one begins"
            )
        return self

    @model_validator(mode="after")
    def _a_prediction_needs_its_rule(self) -> JointConfig:
        if self.refresh_interval == "auto" and self.refresh_interval_rule is None:
            raise ValueError(
                "joint.refresh_interval = 'auto' needs joint.refresh_interval_rule: the run folder of a `dpscale search` of three videos or more, "
                "or its search/rule.json"
            )
        return self

    @property
    def has_field(self) -> bool:
        """Whether a representation is optimised at all."""
        return self.method == "ivr"

    def at(self, step: int) -> JointConfig:
        """The settings in force at a field step, as if they had been so from the start."""
        changed = [change for change in self.changes if change.from_step <= step]
        values = [change.model_dump(exclude={"from_step"}, exclude_none=True) for change in changed]
        return self.model_copy(update=dict(ChainMap({"changes": ()}, *reversed(values)))) if self.changes else self

    def decisive(self) -> dict[str, Any]:
        """What decides the frames, as JSON. Where an interval comes from does not."""
        settings = self.model_dump(mode="json", exclude={"refresh_interval_rule"})
        return {name: value for name, value in settings.items() if name not in _OFF or value != _OFF[name]}


class SchedulerConfig(Section):
    kind: Literal["fifo", "critical_path", "fair"] = Field(
        default="critical_path",
        description="Who is served first: fifo, in order; critical_path, the video with most diffusion work left; fair, tenants by weight.",
    )
    tenant_weights: dict[str, float] = Field(default={}, description="Shares of performers' tenants under kind = fair; 1 where nothing is said.")
    field_workers: int = Field(default=2, ge=1, le=100_000, description="Actors that run field steps.")
    refresh_workers: int = Field(default=1, ge=1, le=100_000, description="Actors that hold the diffusion model.")
    mixed: bool = Field(
        default=False,
        description="Every one of field_workers + refresh_workers takes field steps and holds the diffusion model, and does what is next: nobody "
        "waits for work of its role. Both roles must ask for the same CPUs and GPUs.",
    )
    refresh_together: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Videos of one performer whose windows share a refresh worker's UNet calls: each call holds up to so many times "
        "diffusion.window_batch windows. Above 1 the last bits of a result depend on who shared a call with whom.",
    )
    warm_videos: int = Field(default=2, ge=1, le=10_000, description="Most videos whose state a field worker keeps in memory between slices.")
    warm_gib: float = Field(
        default=4.0,
        ge=0,
        le=65_536,
        description="Memory of a field worker's device that fields and optimisers may take between slices, as measured; others wait on disk.",
    )
    slice_steps: int = Field(default=200, ge=1, le=1_000_000, description="Most field steps scheduled at once; a checkpoint follows each slice.")
    field_cpus: float = Field(default=1.0, gt=0, le=256)
    field_gpus: float = Field(default=0.0, ge=0, le=8)
    refresh_cpus: float = Field(default=1.0, gt=0, le=256)
    refresh_gpus: float = Field(default=0.0, ge=0, le=8)
    refresh_checkpoint_s: float = Field(
        default=60.0,
        ge=0,
        le=86400,
        description="Seconds of denoising after which a refresh leaves its progress on disk, to go on from there if its worker dies.",
    )
    delta_cache_gib: float = Field(
        default=4.0,
        ge=0,
        le=65_536,
        description="Host memory in which a refresh worker keeps the finetuned weights of the performers that it served last, or will serve next; "
        "those in use count, and are kept in any case.",
    )
    max_failures: int = Field(default=3, ge=0, le=100, description="Failures of one video that are tried again; the next one gives it up.")
    rebalance_s: float | None = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="Seconds without work after which a worker takes the other role, where videos wait for that one and both roles ask for the same "
        "CPUs and GPUs; none: never.",
    )
    stall_s: float | None = Field(
        default=None,
        gt=0,
        le=864_000,
        description="Seconds after which a slice or a refresh counts as hung, and its worker is replaced; none: never.",
    )

    @field_validator("tenant_weights")
    @classmethod
    def _weights_are_positive(cls, weights: dict[str, float]) -> dict[str, float]:
        for tenant, weight in weights.items():
            if not 0 < weight < math.inf:
                raise ValueError(f"the weight of tenant {tenant!r} is {weight:g}: it must be above 0 and finite")
        return weights

    @model_validator(mode="after")
    def _mixed_workers_ask_for_the_same(self) -> SchedulerConfig:
        field, refresh = (self.field_cpus, self.field_gpus), (self.refresh_cpus, self.refresh_gpus)
        if self.mixed and field != refresh:
            raise ValueError(
                f"scheduler.mixed: field_cpus, field_gpus = {field} and refresh_cpus, refresh_gpus = {refresh} must be the same, "
                "for every worker does the work of both"
            )
        return self

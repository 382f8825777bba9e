"""A run of Algorithm 1 as the list of what it does, so that two runs share exactly what their lists begin with alike. No torch, no ray.

An operation names everything that decides what it does to the state before it: settings that only later operations read are not in it.
Random numbers derive from (seed, video, step or refresh), so that nothing else has to be equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dpscale.config.schema import Config
from dpscale.joint import plan

_PER_STEP = ("lr", "lr_milestones")
"""Settings of the field that are in each step's operation."""


@dataclass(frozen=True)
class Step:
    """One field step, -warm_up_steps + 1 .. steps."""

    step: int
    lr: float
    flow_weight: float
    asks: tuple[int, float] | None
    """Number and strength of the refresh that is asked for with it."""


@dataclass(frozen=True)
class Answer:
    """The targets of a refresh come into force."""

    refresh: int
    strength: float
    diffusion: str
    """Settings of the diffusion model."""


Operation = Step | Answer


@dataclass(frozen=True)
class Program:
    """What a run does, unless V_s and V_p agree before its end (joint.stop_l1)."""

    start: str
    """Hash of what decides the state before the first operation."""
    operations: tuple[Operation, ...]

    @cached_property
    def keys(self) -> list[str]:
        """The hash of the program up to each operation: [0] of its start, [n] of n operations."""
        digest = hashlib.sha256(self.start.encode())
        keys = [digest.hexdigest()]
        for operation in self.operations:
            digest.update(repr(operation).encode())
            keys.append(digest.hexdigest())
        return keys

    def after_step(self, step: int) -> int:
        """How many operations there are up to field step `step`, itself included."""
        return next(n + 1 for n, operation in enumerate(self.operations) if isinstance(operation, Step) and operation.step == step)


def program(config: Config, inputs: str) -> Program:
    """`inputs` names what the video is made from: its shards, the performer's weights, the seed (see trial.inputs_of)."""
    joint, field = config.joint, config.field.model_dump(mode="json")
    decides: dict[str, Any] = {"inputs": inputs, "field": {name: value for name, value in field.items() if name not in _PER_STEP}}
    if not joint.has_field:
        decides |= {"whole": joint.decisive(), "diffusion": _diffusion(config)}
        return Program(_hash(decides), ())  # equal to itself alone
    if joint.stop_l1 is not None:
        decides["stop"] = [joint.stop_l1, joint.stop_checks, joint.steps, joint.strength_to, [change.model_dump() for change in joint.changes]]
    decides |= {"warm_up": joint.warm_up_steps, "background_flow": joint.background_flow}
    return Program(_hash(decides), tuple(_operations(config)))


def _operations(config: Config) -> Iterable[Operation]:
    """In the order of joint/loop.py."""
    joint = config.joint
    pending = 0 if joint.warm_up_steps == 0 else None
    made = 0
    for step in range(-joint.warm_up_steps, joint.steps + 1):
        if step > -joint.warm_up_steps:
            asks = made if plan.refreshes_at(joint, step) or step == 0 else None
            yield Step(step, plan.learning_rate(config.field, step), _flow_weight(config, step), _asked(config, asks))
            pending = asks if asks is not None else pending
        if pending is not None and (step == joint.steps or step >= plan.needed_by(joint, pending, plan.step_of(joint, pending))):
            yield Answer(pending, plan.strength(joint, pending), _diffusion(config))
            made, pending = made + 1, None


def _asked(config: Config, refresh: int | None) -> tuple[int, float] | None:
    return None if refresh is None else (refresh, plan.strength(config.joint, refresh))


def _flow_weight(config: Config, step: int) -> float:
    return 0.0 if step <= 0 else plan.flow_weight(config.joint, step)


def _diffusion(config: Config) -> str:
    return config.diffusion.model_dump_json()


def _hash(decides: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


# ----------------------------------------------------------------------------- what programs share


def shared(one: Program, two: Program) -> int:
    """How many operations two programs begin with alike."""
    if one.start != two.start:
        return 0
    pairs = enumerate(zip(one.operations, two.operations, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one.operations), len(two.operations)))


def forks(own: Program, others: Sequence[Program], rungs: Sequence[int] = ()) -> list[int]:
    """Numbers of operations of `own` after which its state is worth keeping for others: where one of `others` parts from it, and at every
    rung (a step at which trials may rest) that it reaches together with one. In order."""
    parting = {shared(own, other) for other in others if other != own} - {0, len(own.operations)}
    last = max(parting, default=0)
    resting = {own.after_step(rung) for rung in rungs} if own.operations else set()
    return sorted(parting | {at for at in resting if at <= last})


@dataclass(frozen=True)
class Work:
    """Field steps, and refreshes by strength."""

    steps: int
    answers: tuple[Answer, ...]


def alone(programs: Iterable[tuple[Program, int]]) -> Work:
    """What programs cost, each up to a number of operations, where each is run by itself."""
    return _work(operation for own, reached in programs for operation in own.operations[:reached])


def together(programs: Iterable[tuple[Program, int]]) -> Work:
    """What they cost where each beginning is computed once."""
    seen: dict[str, Operation] = {}
    for own, reached in programs:
        seen |= dict(zip(own.keys[1 : reached + 1], own.operations[:reached], strict=True))
    return _work(seen.values())


def _work(operations: Iterable[Operation]) -> Work:
    found = list(operations)
    return Work(sum(isinstance(one, Step) for one in found), tuple(one for one in found if isinstance(one, Answer)))

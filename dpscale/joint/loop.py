"""Algorithm 1 of DiffPerformer in one process: the reference for every faster way to run it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from dpscale.config.schema import JointConfig
from dpscale.field.loss import Losses
from dpscale.joint import plan
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.state import LOG_EVERY, JointState, KeepFrames, RefreshRequest, in_memory, new_state
from dpscale.joint.step import field_step
from dpscale.joint.video import VideoTask

Refresh = Callable[[RefreshRequest], UInt8[np.ndarray, "N H W 3"]]


def optimise(
    video: VideoTask,
    refresh: Refresh,
    log: Callable[[int, Losses], None],
    save: Callable[[JointState], None],
    state: JointState | None = None,
) -> JointState:
    """Runs, or continues, Algorithm 1 to its end; the result is `targets`, the V_p of the refresh at the last step.

    `log` sees every step's losses, `save` the state after every step and every refresh; both may ignore most of them."""
    state = start(video) if state is None else state
    while not is_finished(state, video):
        if is_waiting(state, video):
            answer(state, video, refresh)
        else:
            losses = advance(state, video)
            log(state.step, losses)
        save(state)
    return state


def optimise_on_disk(video: VideoTask, store: VideoStore, refresh: Refresh, log: Callable[[int, Losses], None], device: str = "cpu") -> None:
    """Runs Algorithm 1 in this process, continuing from the video's folder; leaves the result there."""
    every = video.config.scheduler.slice_steps

    def save(state: JointState) -> None:
        if is_waiting(state, video) or state.optimizer_steps % every == 0:
            store.save(state)

    state = store.load(video, device) or start(video, device, store.keep_guidance)
    store.put_result(optimise(video, store.keeps(refresh), log, save, state), video)


def start(video: VideoTask, device: str = "cpu", keep: KeepFrames = in_memory) -> JointState:
    """Initialises phi; without warm-up, or without phi, the first pass is due at once."""
    state = new_state(video, device, keep)
    if not video.config.joint.has_field:
        state.step = 0
    if state.step == 0:
        state.request_refresh(video, 0)
    return state


def advance(state: JointState, video: VideoTask) -> Losses:
    """Takes the next step; `request` says afterwards whether Algorithm 1 then refreshes.

    The algorithm renders V_s at the end of every step, so a refresh at step k reads the V_s of step k - 1. Nothing reads it in
    between: it is rendered only then."""
    started = time.monotonic()
    step, joint = state.step + 1, video.config.joint
    if plan.refreshes_at(joint, step) or step == state.history.stopped_at:
        state.request_refresh(video, step)
    losses = field_step(state, video, step)
    state.step, state.optimizer_steps = step, state.optimizer_steps + 1
    if step == 0:
        state.request_refresh(video, 0)
    state.history.add_losses(step, losses)
    if _agrees(state, joint):
        state.history.stopped_at = step + 1
    state.history.field_s += time.monotonic() - started
    return losses


def answer(state: JointState, video: VideoTask, refresh: Refresh) -> None:
    """V_p <- E_dec(D_p(E_enc(V_s), P)), in this process."""
    started = time.monotonic()
    assert state.request is not None, "nobody asked for a refresh"
    targets = refresh(state.request)
    accept(state, video, targets, time.monotonic() - started)


def accept(state: JointState, video: VideoTask, targets: UInt8[np.ndarray, "N H W 3"], seconds: float) -> None:
    """Puts the answer of a refresh into force. Where no field is optimised, the next refresh is due at once."""
    state.renew_targets(targets, seconds)
    joint = video.config.joint
    if joint.has_field:
        return
    if state.num_refreshes <= plan.num_refreshes(joint):
        state.step = plan.step_of(joint, state.num_refreshes)
        state.request_refresh(video, state.step)
    else:
        state.step = joint.steps


def is_waiting(state: JointState, video: VideoTask) -> bool:
    """Whether the targets that were asked for must be there before the next step. It depends on steps alone, never on time."""
    if state.request is None:
        return False
    joint = video.config.joint
    return state.step == last_step(state, joint) or state.step >= plan.needed_by(joint, state.request.refresh, state.request.step)


def is_finished(state: JointState, video: VideoTask) -> bool:
    return state.step == last_step(state, video.config.joint) and state.request is None


def last_step(state: JointState, joint: JointConfig) -> int:
    """The step whose refresh is the output."""
    return state.history.stopped_at or joint.steps


def _agrees(state: JointState, joint: JointConfig) -> bool:
    """Whether V_s and V_p have agreed for `stop_checks` logged losses in a row, since the present targets came into force. Not while
    others are being made, and not where the next step is the last one anyway."""
    done = state.history.stopped_at is not None or state.step + 1 >= joint.steps
    if joint.stop_l1 is None or done or state.request is not None or state.step <= 0 or state.step % LOG_EVERY != 0:
        return False
    since = state.history.refreshes[-1]["used_from"]
    checks = [255 * entry["loss_reconstruction"] for entry in state.history.losses[-joint.stop_checks :] if entry["step"] >= since]
    return len(checks) == joint.stop_checks and max(checks) < joint.stop_l1

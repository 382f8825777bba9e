"""Algorithm 1 of DiffPerformer in one process: the reference for every faster way to run it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from dpscale.field.loss import Losses
from dpscale.joint import plan
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.state import JointState, RefreshRequest, new_state
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
        if state.request is not None:
            answer(state, refresh)
        else:
            losses = advance(state, video)
            log(state.step, losses)
        save(state)
    return state


def optimise_on_disk(video: VideoTask, store: VideoStore, refresh: Refresh, log: Callable[[int, Losses], None]) -> None:
    """Runs Algorithm 1 in this process, continuing from the video's folder; leaves the result there."""
    every = video.config.scheduler.slice_steps

    def save(state: JointState) -> None:
        if state.request is not None or state.optimizer_steps % every == 0:
            store.save(state)

    state = optimise(video, store.keeps(refresh), log, save, store.load(video))
    store.put_result(state)


def start(video: VideoTask, device: str = "cpu") -> JointState:
    """Initialises phi; without warm-up the first pass is due at once."""
    state = new_state(video, device)
    if state.step == 0:
        state.request_refresh(video, 0, state.field.render_all())
    return state


def advance(state: JointState, video: VideoTask) -> Losses:
    """Takes the next step; `request` says afterwards whether Algorithm 1 then refreshes.

    The algorithm renders V_s at the end of every step, so a refresh at step k reads the V_s of step k - 1. Nothing reads it in
    between: it is rendered only then."""
    started = time.monotonic()
    step = state.step + 1
    if plan.refreshes_at(video.config.joint, step):
        state.request_refresh(video, step, state.field.render_all())
    losses = field_step(state, video, step)
    state.step, state.optimizer_steps = step, state.optimizer_steps + 1
    if step == 0:
        state.request_refresh(video, 0, state.field.render_all())
    state.history.add_losses(step, losses)
    state.history.field_s += time.monotonic() - started
    return losses


def answer(state: JointState, refresh: Refresh) -> None:
    """V_p <- E_dec(D_p(E_enc(V_s), P)), in this process."""
    started = time.monotonic()
    targets = refresh(state.request)
    state.renew_targets(targets, time.monotonic() - started)


def is_finished(state: JointState, video: VideoTask) -> bool:
    return state.step == video.config.joint.steps and state.request is None

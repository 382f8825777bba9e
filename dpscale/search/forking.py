"""Runs that go on from each other's states. A forked run equals the same run alone, to the bit: it only takes up a state that its own
program (program.py) leads to."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import advance, answer, is_finished, is_waiting, start
from dpscale.joint.state import JointState, RefreshRequest
from dpscale.joint.video import VideoTask
from dpscale.search.program import Program

Refresh = Callable[[RefreshRequest], np.ndarray]


def fork(source: VideoStore, target: VideoStore, video: VideoTask, device: str = "cpu") -> JointState:
    """Commits the newest state of `source`, and the refreshes that it stands on, to `target`, under the fingerprint of `target`.

    Whoever calls it knows that the state follows from the settings of `target` too."""
    state = source.load(video, device)
    assert state is not None, f"{source.folder} holds no state"
    for number in sorted({0, state.num_refreshes - 1}) if state.num_refreshes else ():
        if target.refresh(number) is None:
            target.put_refresh(number, source.refresh(number), source.refresh_s(number))
    target.save(state)
    taken = target.load(video, device)
    assert taken is not None
    return taken


@dataclass
class Spent:
    """What a process has really computed for a trial; what it took up from others is not in it."""

    steps: int = 0
    refreshes: int = 0


class ForkedRun:
    """One run of Algorithm 1 in a folder of its own, which leaves states for others at `forks` and begins with theirs."""

    def __init__(
        self, video: VideoTask, store: VideoStore, own: Program, forks: Sequence[int], prefixes: Path, refresh: Refresh, device: str = "cpu"
    ) -> None:
        """`forks`: numbers of operations of the program `own` after which a state belongs to `prefixes`, in order."""
        self._video, self._store, self._program, self._forks = video, store, own, forks
        self._prefixes, self._refresh, self._device = prefixes, store.keeps(refresh), device
        self._state: JointState | None = None
        self.spent = Spent()

    def to_step(self, step: int) -> JointState:
        """The state when field step `step` has just been taken, computed as far as nobody has done so, and committed.

        A state that is farther already stays as it is."""
        return self._to(self._program.after_step(step))

    def to_end(self) -> JointState:
        """The finished run; its result is committed."""
        state = self._to(len(self._program.operations))
        while not is_finished(state, self._video):  # without operations: a method that nothing is shared of
            self._go_on(state)
        self._store.put_result(state, self._video)
        return state

    def _to(self, end: int) -> JointState:
        for at in (fork for fork in self._forks if fork <= end):
            if self._position() < at:
                self._reach_together(at)
        state = self._own() or self._started()
        self._advance(state, end)
        self._store.save(state)
        return state

    def _reach_together(self, at: int) -> None:
        """Computes the shared state after `at` operations, unless it is there; who comes second waits for who was first."""
        shared = self._prefix(at)
        with held(shared.folder.with_suffix(".lock")):
            if shared.newest() is None:
                state = self._own() or self._started()
                self._advance(state, at)
                self._store.save(state)
                if self._position() == at:  # not where V_s and V_p have agreed before
                    fork(self._store, shared, self._video, self._device)

    def _own(self) -> JointState | None:
        """The farthest state that there is: its own, or one that others have left and that is farther."""
        if self._state is None:
            self._state = self._store.load(self._video, self._device)
        for at in reversed(self._forks):
            if at > self._position() and self._prefix(at).newest() is not None:
                self._state = fork(self._prefix(at), self._store, self._video, self._device)
                break
        return self._state

    def _started(self) -> JointState:
        self._state = start(self._video, self._device, self._store.keep_guidance)
        return self._state

    def _advance(self, state: JointState, end: int) -> None:
        while position(state) < end and not is_finished(state, self._video):
            self._go_on(state)

    def _go_on(self, state: JointState) -> None:
        if is_waiting(state, self._video):
            answer(state, self._video, self._refresh)
            self.spent.refreshes += 1
        else:
            advance(state, self._video)
            self.spent.steps += 1
        if is_waiting(state, self._video) or state.optimizer_steps % self._video.config.scheduler.slice_steps == 0:
            self._store.save(state)

    def _position(self) -> int:
        return 0 if self._state is None else position(self._state)

    def _prefix(self, at: int) -> VideoStore:
        key = self._program.keys[at]
        return VideoStore(self._prefixes / key[:20], key)


def position(state: JointState) -> int:
    """How many operations have led to a state."""
    return state.optimizer_steps + state.num_refreshes


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Waits for the lock, which the system drops with the process that holds it, however it ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

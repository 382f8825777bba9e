"""One actor writes for all workers: SQLite takes one writer well and many badly, and a run's spool has one owner."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dpscale.config.schema import Config, TrackingConfig
from dpscale.data.layout import RunLayout
from dpscale.data.types import InputError
from dpscale.tracking.system_metrics import NodeMeter
from dpscale.tracking.tracker import BATCH, Event, NullTracker, Recorder, Tracker, make_tracker

log = logging.getLogger(__name__)

MAX_RESTARTS = 3
SEND_S = 0.2
"""How long points are collected in a worker before they are sent to the writer."""

MAX_HELD = 2000
"""Events that a worker holds; one that has so many waits for the writer, that is for a disk and never for a server."""

ANSWER_S = 30.0
"""How long the writer may take to put events on disk; a worker goes on without them after that."""

FLUSH_MARGIN_S = 30.0


class _Writer:
    """Owns the tracker. After a crash the new process opens it again and continues the same runs."""

    def __init__(self, config: Config, layout: RunLayout) -> None:
        self._config, self._layout = config, layout
        self._tracker: Recorder | None = None

    def open(self) -> Recorder:
        """Separate from the constructor, for Ray hides the type of an error that is raised there."""
        if self._tracker is None:
            self._tracker = make_tracker(self._config, self._layout)
        return self._tracker

    def check(self) -> None:
        self.open()

    def record(self, events: Sequence[Event]) -> None:
        self.open().record(events)

    def flush(self) -> None:
        self.open().flush()


TrackerActor = ray.remote(num_cpus=0, max_restarts=MAX_RESTARTS, max_task_retries=MAX_RESTARTS)(_Writer)


class ActorTracker(Recorder):
    """Implements Tracker: hands events to the writer. May be passed to tasks and actors.

    Points are collected and sent by a thread; every other event is with the writer when the call returns."""

    def __init__(self, actor: Any, drain_s: float) -> None:
        self._actor, self._drain_s = actor, drain_s
        self._held: list[Event] = []
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._warned = False

    def __reduce__(self) -> tuple[type[ActorTracker], tuple[Any, float]]:
        return ActorTracker, (self._actor, self._drain_s)  # each process sends its own events

    def record(self, events: Sequence[Event]) -> None:
        with self._changed:
            self._held.extend(events)
            is_full = len(self._held) >= MAX_HELD
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_points, name="tracking-sender", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        if is_full or any(event["event"] != "metrics" for event in events):
            self._send()

    def flush(self) -> None:
        """Everything that this process has recorded is on disk after this, and at the server if that answers in time."""
        self._send()
        self._get(self._actor.flush.remote(), self._drain_s + FLUSH_MARGIN_S)

    def close(self) -> None:
        """Ends the writer, for every process: what it has not delivered stays on disk, and the next command may write there."""
        self.flush()
        ray.kill(self._actor)

    def _send_points(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held)
                self._changed.wait(SEND_S)
            self._send()

    def _send(self) -> None:
        with self._sending:  # in order, one call at a time
            with self._changed:
                events, self._held = self._held, []
            if events:
                self._get(self._actor.record.remote(events), ANSWER_S)

    def _get(self, call: ray.ObjectRef, timeout_s: float) -> None:
        try:
            ray.get(call, timeout=timeout_s)
        except GetTimeoutError:
            self._warn(f"has not answered for {timeout_s:g} s")
        except RayError as error:
            self._warn(f"is gone ({type(error).__name__})")

    def _warn(self, what: str) -> None:
        if not self._warned:
            log.warning("the tracking process %s; the run goes on, its record may have gaps", what)
        self._warned = True


def start_tracker(config: Config, layout: RunLayout) -> Tracker:
    """Starts the one writer of a run on this node, and waits until its store is open or found to be away. Ray must be initialised.

    Raises InputError where `config.tracking` cannot be used."""
    if config.tracking.kind == "none":
        return NullTracker()
    actor = TrackerActor.options(scheduling_strategy=_on_node(ray.get_runtime_context().get_node_id(), soft=True)).remote(config, layout)
    try:
        ray.get(actor.check.remote())
    except RayTaskError as error:
        ray.kill(actor)
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise
    return ActorTracker(actor, config.tracking.drain_s)


def _on_node(node_id: str, soft: bool) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id, soft=soft)  # soft for the writer: beside the driver and SQLite's file, if that node lives


# ------------------------------------------------------------------------------------ system metrics


class _RemoteMeter:
    """Measures another node every `every_s` seconds until it is killed."""

    def __init__(self, tracker: Tracker, label: str, every_s: float) -> None:
        self._tracker, self._label, self._every_s = tracker, label, every_s

    def run(self) -> None:
        meter = NodeMeter()
        while True:
            time.sleep(self._every_s)
            record_node(self._tracker, self._label, meter)


MeterActor = ray.remote(num_cpus=0)(_RemoteMeter)


@contextmanager
def measured_nodes(config: TrackingConfig, tracker: Tracker) -> Iterator[None]:
    """Points of every node's load inside, if the settings ask for them. Ray must be initialised."""
    if config.kind == "none" or config.system_metrics_s is None:
        yield
        return
    meters = NodeMeters(tracker, config.system_metrics_s)
    try:
        yield
    finally:
        meters.stop()


class NodeMeters:
    """Measures every node of the cluster, those that join later as well, until `stop`: this one in a thread, the others in an actor each."""

    def __init__(self, tracker: Tracker, every_s: float) -> None:
        self._tracker, self._every_s = tracker, every_s
        self._here = ray.get_runtime_context().get_node_id()
        self._labels: dict[str, str] = {}
        self._actors: list[Any] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node-meters", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=10)
        for actor in self._actors:
            ray.kill(actor)

    def _run(self) -> None:
        meter = NodeMeter()
        while not self._stopped.wait(self._every_s) and ray.is_initialized():
            try:
                self._look_for_nodes()
                record_node(self._tracker, self._labels[self._here], meter)
            except (RayError, OSError, KeyError) as error:
                log.debug("system metrics: %s", error)

    def _look_for_nodes(self) -> None:
        for node in ray.nodes():
            node_id, name = node["NodeID"], node["NodeManagerHostname"]
            if not node["Alive"] or node_id in self._labels:
                continue
            self._labels[node_id] = name if name not in self._labels.values() else f"{name}-{node_id[:8]}"
            if node_id != self._here:
                actor = MeterActor.options(scheduling_strategy=_on_node(node_id, soft=False)).remote(
                    self._tracker, self._labels[node_id], self._every_s
                )
                actor.run.remote()
                self._actors.append(actor)


def record_node(tracker: Tracker, label: str, meter: NodeMeter) -> None:
    """One measurement as points ``system/<label>/...`` of the batch; their step is the time in seconds, so that a resumed run goes on."""
    tracker.metrics(BATCH, {f"system/{label}/{name}": value for name, value in meter.measure().items()}, int(time.time()))

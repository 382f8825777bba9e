"""The parent run of a batch, from its start to how it ended."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sized
from contextlib import contextmanager

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.tracking.lineage import record_lineage
from dpscale.tracking.tracker import BATCH, Tracker, spool_folder

log = logging.getLogger(__name__)


@contextmanager
def tracked(config: Config, layout: RunLayout, failed: Sized) -> Iterator[Tracker]:
    """The batch's tracker. At the end its run is FINISHED, or FAILED if `failed` holds anything by then, or KILLED by an exception."""
    from dpscale.tracking.on_ray import measured_nodes, start_tracker

    tracker = start_tracker(config, layout)
    try:
        with measured_nodes(config.tracking, tracker):
            yield tracker
        if config.tracking.kind != "none":
            record_lineage(config, layout, tracker)
    except BaseException:
        tracker.finish(BATCH, "KILLED")
        raise
    else:
        tracker.finish(BATCH, "FAILED" if failed else "FINISHED")
    finally:
        tracker.close()
        _tell_what_waits(config, layout)


def _tell_what_waits(config: Config, layout: RunLayout) -> None:
    """The writer's own warnings stay in Ray's logs."""
    from dpscale.tracking.spooled import pending

    if config.tracking.kind == "mlflow" and pending(spool_folder(layout)):
        log.warning(
            "MLflow has not answered: part of the record waits in %s; this command again, or `dpscale report`, sends it", spool_folder(layout)
        )


def replay(config: Config, layout: RunLayout) -> None:
    """Sends what earlier commands left on disk for an MLflow server that was away. Nothing is imported or opened where nothing waits."""
    from dpscale.tracking.spooled import SpooledTracker, pending

    if config.tracking.kind != "mlflow" or not pending(spool_folder(layout)):
        return
    from dpscale.tracking.mlflow_tracker import MlflowStore

    tracker = SpooledTracker(spool_folder(layout), MlflowStore(config, layout), config.tracking)
    tracker.close()

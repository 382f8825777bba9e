"""The parent run of a batch, from its start to how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import contextmanager

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.tracking.tracker import BATCH, Tracker


@contextmanager
def tracked(config: Config, layout: RunLayout, failed: Sized) -> Iterator[Tracker]:
    """The batch's tracker. At the end its run is FINISHED, or FAILED if `failed` holds anything by then, or KILLED by an exception."""
    from dpscale.tracking.on_ray import start_tracker

    tracker = start_tracker(config, layout)
    try:
        yield tracker
    except BaseException:
        tracker.finish(BATCH, "KILLED")
        raise
    else:
        tracker.finish(BATCH, "FAILED" if failed else "FINISHED")
    finally:
        tracker.flush()

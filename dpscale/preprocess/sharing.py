"""Finished shards that other machines and runs made, and ours for them: the store only saves work, its failures stop nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from dpscale.data.layout import RunLayout
from dpscale.data.remote import ShardStore
from dpscale.data.store_errors import StoreError
from dpscale.preprocess.manifest import MAIN, Job

log = logging.getLogger(__name__)

_AT_ONCE = 8
"""Transfers at once: they wait for the network, not for a processor."""


def fetched(url: str, layout: RunLayout, jobs: Sequence[Job]) -> list[Job]:
    """The jobs; those whose shard the store had, with the same key, are finished now. What is finished here is given to the store."""
    store = ShardStore(url)

    def settle(job: Job) -> Job:
        if job.kind == "movement" or job.error is not None:
            return job
        clip = job.drive or MAIN
        if job.finished:
            note = shared(url, layout, job.performer, clip)
            if note:
                log.warning("%s: %s", job.name, note)
            return job
        try:
            return replace(job, finished=store.fetch(shard_name(job.performer, clip), layout.shard(job.performer, clip), job.key))
        except StoreError as error:
            log.warning("%s: not fetched, made here: %s", job.name, error)
            return job

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(settle, jobs))


def shared(url: str, layout: RunLayout, performer: str, clip: str) -> str:
    """Gives a finished shard to the store; returns what went wrong, mostly nothing."""
    try:
        ShardStore(url).publish(layout.shard(performer, clip), shard_name(performer, clip))
    except StoreError as error:
        return f"finished, not shared: {error}"
    return ""


def shard_name(performer: str, clip: str) -> str:
    return f"performer={performer}/clip={clip}"

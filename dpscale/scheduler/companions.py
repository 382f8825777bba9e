"""Videos of one performer that an actor refreshes together: their windows share its UNet calls (diffusion/together.py)."""

from __future__ import annotations

from itertools import islice
from typing import TypeVar

from dpscale.scheduler.records import ActorRecord, VideoRecord


class Companions:
    """Who may join whom: videos that wait for the diffusion model, and actors that are at a video of the same performer and have room.

    At most `together` videos an actor. A video that has failed goes alone, so that one that kills its worker takes no other with it again."""

    def __init__(self, together: int) -> None:
        self._together = together
        self._waiting: dict[str, dict[str, VideoRecord]] = {}
        """By performer, in the order in which they came."""
        self._hosts: dict[str, dict[int, ActorRecord]] = {}

    def waits(self, video: VideoRecord) -> None:
        if self._together > 1 and video.failures == 0:
            self._waiting.setdefault(video.performer, {})[video.name] = video

    def waits_no_more(self, video: VideoRecord) -> None:
        _drop(self._waiting, video.performer, video.name)

    def changed(self, actor: ActorRecord, video: VideoRecord) -> None:
        """The actor has begun or ended a refresh of the video, or leaves while it is at it."""
        if self._together == 1:
            return
        _drop(self._hosts, video.performer, actor.number)
        if actor.videos and len(actor.videos) < self._together and not actor.leaving and all(other.failures == 0 for other in actor.videos.values()):
            self._hosts.setdefault(video.performer, {})[actor.number] = actor

    def of(self, video: VideoRecord) -> list[VideoRecord]:
        """Those who may go with a video that is about to begin."""
        if video.failures > 0:
            return []
        return list(islice(self._waiting.get(video.performer, {}).values(), self._together - 1))

    def host(self, video: VideoRecord) -> ActorRecord | None:
        """An actor that can take it in beside what it is at."""
        return next(iter(self._hosts.get(video.performer, {}).values()), None) if video.failures == 0 else None


_Key, _Value = TypeVar("_Key"), TypeVar("_Value")


def _drop(table: dict[str, dict[_Key, _Value]], performer: str, key: _Key) -> None:
    if performer in table:
        table[performer].pop(key, None)
        if not table[performer]:
            del table[performer]

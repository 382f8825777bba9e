"""Where each artefact of a run lives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig

_SAFE_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}$")


def safe_name(name: str) -> str:
    """`name` if it may become a folder name, else ValueError: a name from outside never becomes a path unchecked."""
    if not _SAFE_NAME.fullmatch(name):
        raise ValueError(f"the name {name!r} may hold lower case letters, digits, '-' and '_' only, at most 64, a letter or digit first")
    return name


@dataclass(frozen=True)
class RunLayout:
    """Paths of one run below ``<run.root>/<run.name>``."""

    root: Path

    @classmethod
    def of(cls, config: Config) -> RunLayout:
        return cls((config.run.root / config.run.name).resolve())

    @property
    def resolved_config(self) -> Path:
        return self.root / "config.json"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def scheduling(self) -> Path:
        """Folder of what the scheduler knows: journal.jsonl, status.json, wishes/."""
        return self.root / "scheduling"

    @property
    def mlflow_db(self) -> Path:
        """Shared by all runs below one root."""
        return self.root.parent / "mlflow.db"

    @property
    def quarantine(self) -> Path:
        """Clips that preprocessing could not use (Parquet)."""
        return self.root / "quarantine.parquet"

    def step(self, kind: str, key: str) -> Path:
        """A result inside preprocessing that other results follow from (.npz), by the hash of what it follows from."""
        return self.root / "steps" / f"{safe_name(kind)}-{key[:32]}.npz"

    def parts(self, performer: str, clip: str, key: str) -> Path:
        """Folder of the parts of a shard that is being made."""
        return self.root / "steps" / f"{safe_name(performer)}--{safe_name(clip)}-{key[:32]}"

    def source_video(self, performer: str) -> Path:
        """Where a rendered performer's footage is written before preprocessing."""
        return self.root / "sources" / f"{safe_name(performer)}.mp4"

    def shard(self, performer: str, clip: str) -> Path:
        """Folder of one clip's Parquet shard; complete when it holds its marker. The performer's own video is clip `main`."""
        return self.root / "shards" / f"performer={safe_name(performer)}" / f"clip={safe_name(clip)}"

    def truth(self, performer: str) -> Path:
        """Exact truth of a rendered performer (.npz: keypoints, iuv, flow, flow_valid), beside its footage."""
        return self.root / "sources" / f"{safe_name(performer)}_truth.npz"

    def finetune(self, performer: str) -> Path:
        """Folder of one performer's finetuning: checkpoints, then `denoiser.safetensors`, `decoder.safetensors`."""
        return self.root / "finetune" / safe_name(performer)

    def joint(self, video: VideoConfig) -> Path:
        """Folder of one video's joint optimisation: checkpoints, refresh results, final frames."""
        return self.root / "joint" / self.video_name(video)

    def interval(self, video: VideoConfig) -> Path:
        """The refresh interval that was predicted for a video (.json)."""
        return self.joint(video) / "interval.json"

    def inputs(self, video: VideoConfig) -> Path:
        """Folder of a video's decoded arrays (joint/inputs.py)."""
        return self.root / "joint" / self.video_name(video) / "inputs"

    @property
    def search(self) -> Path:
        """Folder of searches: trials, what they share, results."""
        return self.root / "search"

    @property
    def rule(self) -> Path:
        """What a search of several videos has learnt about the refresh interval."""
        return self.search / "rule.json"

    def videos(self, video: VideoConfig) -> Path:
        """Folder of one video's finished mp4s and contact sheets."""
        return self.root / "videos" / self.video_name(video)

    def metrics(self, video: VideoConfig) -> Path:
        return self.root / "metrics" / f"{self.video_name(video)}.json"

    @staticmethod
    def video_name(video: VideoConfig) -> str:
        return f"{safe_name(video.performer)}--{safe_name(video.drive)}"

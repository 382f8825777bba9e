"""`dpscale synth`: rendered performers as H.264 videos, each with its exact truth beside it, in <run>/sources."""

from __future__ import annotations

import time

import ray

from dpscale.body.rendered import TRAINING_MOTIONS
from dpscale.config.schema import Config
from dpscale.config.sources import RenderedPerformer
from dpscale.data.layout import RunLayout
from dpscale.data.seeds import derive
from dpscale.preprocess.sources import rendered_source
from jobs.cluster_session import ray_session
from jobs.progress import clock
from jobs.run_folder import claimed


def run(config: Config) -> int:
    """Performer i has seed `synth.first_seed` + i. Those that are there are kept."""
    layout, start = RunLayout.of(config), time.monotonic()
    performers = [performer(config, config.synth.first_seed + i) for i in range(config.synth.num_performers)]
    print(f"{len(performers)} performers -> {layout.source_video(performers[0].name).parent}", flush=True)
    with claimed(config, layout), ray_session(config.ray):
        waiting = [_render.remote(config, layout, performer) for performer in performers]
        for i in range(1, len(waiting) + 1):
            (done,), waiting = ray.wait(waiting)
            elapsed_s = time.monotonic() - start
            left = f", about {clock(elapsed_s / i * len(waiting))} left" if waiting else ""
            print(f"{ray.get(done)}  {clock(elapsed_s)}{left}", flush=True)
    return 0


def performer(config: Config, seed: int) -> RenderedPerformer:
    """The movement follows from the seed, too."""
    motion = TRAINING_MOTIONS[derive(seed, "synth", "motion") % len(TRAINING_MOTIONS)]
    settings = config.synth
    return RenderedPerformer(name=f"seed-{seed:07d}", performer_seed=seed, motion=motion, num_frames=settings.num_frames, fps=settings.fps)


@ray.remote(num_cpus=1)
def _render(config: Config, layout: RunLayout, performer: RenderedPerformer) -> str:
    rendered_source(performer, config, layout)
    return f"{performer.name} ({performer.motion})"

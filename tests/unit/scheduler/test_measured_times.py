from __future__ import annotations

from pathlib import Path

import pytest

from dpscale.scheduler.journal import Segment, segments
from dpscale.scheduler.measured_times import measured_times
from dpscale.scheduler.messages import VideoWork
from dpscale.scheduler.simulation import Cluster, Job, ServiceTimes, Simulation
from tests.unit.scheduler.many_jobs import NAMES, OPENING, SETTINGS, simulated, write_journal

TIMES = ServiceTimes(field_step_s=0.1, slice_s=0.5, load_s=1.0, refresh_frame_s=0.2, refresh_s=0.0, result_s=2.0)


def test_a_simulated_course_gives_its_times_back() -> None:
    jobs = [Job(name, VideoWork(50, 1030, 400, 4), 20 + 10 * number) for number, name in enumerate(NAMES)]
    calm = Cluster(num_field=3, num_refresh=2, warm_videos=SETTINGS.warm_videos)
    course = Simulation(OPENING.scheduler(), jobs, TIMES, calm, SETTINGS.slice_steps, seed=3).run()
    found = measured_times([Segment(OPENING, course.events, closed=True)])
    assert vars(found) == pytest.approx(vars(TIMES), rel=0.02)


def test_a_rough_journal_gives_them_too(tmp_path: Path) -> None:
    """Failed and stopped work is left out. All slices of warm videos have 100 steps: what a step costs alone cannot be told."""
    write_journal(tmp_path / "journal.jsonl", simulated()[1])
    found = measured_times(segments(tmp_path / "journal.jsonl"))
    assert 100 * found.field_step_s + found.slice_s == pytest.approx(100 * 0.1 + 0.5, rel=0.01)
    assert found.load_s > 0


def test_an_empty_journal_is_too_little() -> None:
    with pytest.raises(ValueError, match="too little"):
        measured_times([Segment(OPENING, [], closed=False)])

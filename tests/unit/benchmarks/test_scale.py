"""docs/scale.md quotes what benchmarks/scale.py has computed, and that follows from the figures that are kept now."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale
from benchmarks.scheduler_sim import Question
from dpscale.config.load import load

PAGE = (Path(__file__).parents[3] / "docs" / "scale.md").read_text()


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return json.loads((scale.RESULTS / "scale.json").read_text())


def test_the_page_has_the_tables(kept):
    lines = [line for line in scale.tables(kept).splitlines() if line]
    assert len(lines) > 20
    for line in lines:
        assert line in PAGE.splitlines(), line


def test_other_figures_on_the_page(kept):
    slow, fast = kept["at_tflops"]["60"], kept["at_tflops"]["400"]
    rows, totals, units, counted = kept["rows"], slow["totals"], slow["units"], kept["counted"]
    days = {(row["tflops"], row["gpus"]): row["days"] for row in rows}
    at_1000 = rows[2]
    simulated = json.loads((scale.RESULTS / "scheduler_sim.json").read_text())
    for text in (
        f"{kept['measured']['preprocess_core_s_per_frame']:.3f} core-seconds a frame",
        f"{1000 * kept['measured']['field_step_s']:.1f} ms on an H100",
        f"{counted['denoiser_forward_tflop_per_frame']:.2f} TFLOP a frame",
        f"a training step of 8 frames {counted['denoiser_step_tflop']:.1f}, of the decoder (4 frames) {counted['decoder_step_tflop']:.1f}",
        f"{counted['field_state_bytes'] / 2**20:.0f} MiB",
        f"{kept['measured']['mlflow_rows_per_s']:,.0f} rows a second",
        f"{round(simulated['decisions_per_s'], -2):,.0f} decisions a second, {simulated['bytes_per_video']['64000']:.0f} bytes a video",
        f"{slow['service_times']['refresh_frame_s'] * 60:.0f} TFLOP",
        f"{units['refresh_gpu_s_per_frame'] * 60:.0f} TFLOP x frames",
        f"{units['finetune_gpu_h_per_performer'] * 3600 * 60 / 1000:.0f} PFLOP x performers",
        f"{totals['preprocess_core_h']:.0f} core-hours",
        f"{units['mlflow_rows_per_video']:,.0f} rows a video",
        f"{units['mlflow_rows_per_performer']:.0f} a performer",
        f"{totals['checkpoints_tib']:.0f} TiB written",
        f"{totals['deltas_tib']:.0f} TiB read",
        f"{totals['refresh_gpu_h'] / totals['gpu_h']:.0%} of the GPU-hours".replace("%", " %"),
        f"{int(days[60, 8])} days",
        f"bring it to {days[400, 8]:.0f} days",
        f"({days[60, 64]:.1f} days)",
        f"{at_1000['videos_h']:.1f} h where the work would be done in {(totals['field_gpu_h'] + totals['refresh_gpu_h']) / 1000:.1f}",
        f"3,000 frames are {3000 * units['refresh_gpu_s_per_frame'] / 3600:.1f} GPU-hours",
        f"{at_1000['mlflow_rows_per_s']:.0f} of the {kept['measured']['mlflow_rows_per_s']:,.0f} rows",
        f"{rows[5]['mlflow_rows_per_s']:,.0f} rows a second",
        f"{at_1000['storage_gb_s']:.1f} GB/s ({rows[5]['storage_gb_s']:.0f} in bf16)",
        f"{at_1000['preprocess_cores_to_keep_up']:.0f} cores",
    ):
        assert text in re.sub(r"\s+", " ", PAGE), text
    assert fast["totals"]["field_gpu_h"] == totals["field_gpu_h"], "the assumption is about the networks alone"


def test_what_is_kept_follows_from_the_figures_of_now(kept):
    """Another benchmark's result, a preset or an assumption that changed asks for `python -m benchmarks.scale` again."""
    config = load(scale.PRESET)
    assert kept["measured"] == pytest.approx(scale.measured())
    for tflops in (scale.FP32_TFLOPS, scale.BF16_TFLOPS):
        assumed, found = scale.Assumed(tflops), kept["at_tflops"][f"{tflops:g}"]
        units = scale.units(config, scale.measured(), kept["counted"], assumed)
        assert found["units"] == pytest.approx(units)
        assert found["totals"] == pytest.approx(scale.totals(units, kept["num_frames"]))
        times = scale.service_times(config, scale.measured(), kept["counted"], assumed)
        assert found["service_times"] == pytest.approx(vars(times))
        assert kept["num_frames"] == sum(job.num_frames for job in Question(times, scale.VIDEOS, 8, config.joint.steps).jobs)
        for row in (row for row in kept["rows"] if row["tflops"] == tflops):
            assert row == pytest.approx(scale.row(row["gpus"], units, kept["num_frames"], row["videos_h"], assumed))


def test_operations_are_counted(kept):
    assert scale.counts(load(scale.PRESET)) == pytest.approx(kept["counted"], rel=1e-6)


def test_a_faster_gpu_makes_videos_sooner(monkeypatch):
    monkeypatch.setattr(scale, "VIDEOS", 12)
    config = load(scale.PRESET)
    kept = json.loads((scale.RESULTS / "scale.json").read_text())["counted"]
    _, rows = scale.answer(config, kept, [4])
    slow, fast = rows
    assert 1 < slow["videos_h"] / fast["videos_h"] < 400 / 60
    assert slow["videos_over_work"] >= 1

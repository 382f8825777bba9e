"""What a field worker keeps in memory; tests/ray has workers as actors."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.on_ray import _FieldWorker
from tests.ray.test_optimize_on_ray import VIDEOS, make_config, write_inputs
from tests.small_performer import small_model


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    small_model().save(folder)
    return folder


def warm_after_a_slice_of_each(config: Config) -> tuple[_FieldWorker, list[str]]:
    layout = RunLayout.of(config)
    write_inputs(layout)
    worker = _FieldWorker(config, layout)
    for video in VIDEOS:
        worker.run_slice(video)
    return worker, list(worker._warm)


def test_states_leave_memory_where_they_take_more_than_they_may(weights: Path, tmp_path: Path) -> None:
    worker, warm = warm_after_a_slice_of_each(make_config(tmp_path, weights, "roomy"))
    assert warm == ["ann--self", "ben--self"]
    each = worker._warm["ann--self"].state.num_bytes
    parameters = sum(parameter.nbytes for parameter in worker._warm["ann--self"].state.field.parameters())
    assert each >= 3 * parameters, "Adam's two moments count"
    for gib, expected in ((1.5 * each / 2**30, ["ben--self"]), (0.5 * each / 2**30, [])):
        tight, warm = warm_after_a_slice_of_each(make_config(tmp_path, weights, f"tight-{len(expected)}", warm_gib=gib))
        assert warm == expected
    receipt = tight.run_slice(VIDEOS[0])
    assert receipt.steps_done > 3, "it goes on from the disk"
    assert VideoStore.of(tight._config, tight._layout, VIDEOS[0]).newest() is not None

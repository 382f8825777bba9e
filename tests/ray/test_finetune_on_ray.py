from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dpscale.config.schema import Config
from dpscale.data.layout import RunLayout
from dpscale.data.shards import read_clip, write_clip
from dpscale.diffusion.weights import PoseVideoModel
from dpscale.finetune.decoder import DecoderStep, trainable_decoder
from dpscale.finetune.loop import TorchEngine, train
from dpscale.finetune.on_ray import finetune
from dpscale.finetune.performer import finetune_performer
from dpscale.finetune.step import DenoiserStep, Worker
from dpscale.finetune.trainable import TrainablePart, trainable_denoiser, unfrozen
from dpscale.tracking.tracker import FileTracker, NullTracker
from tests.small_performer import small_clip, small_run

pytestmark = pytest.mark.usefixtures("ray_session")


def deltas(layout: RunLayout, performer: str) -> dict[str, Tensor]:
    folder = layout.finetune(performer)
    return {f"{part}.{name}": t for part in ("denoiser", "decoder") for name, t in load_file(folder / f"{part}.safetensors").items()}


def torch_engine(part: TrainablePart, lr: float, state: Mapping[str, Tensor] | None) -> TorchEngine:
    return TorchEngine(part.parameters, part.groups(0.01), lr, state)


def one_process(root: Path, config: Config, model: PoseVideoModel, performer: str) -> dict[str, Tensor]:
    """The reference: plain torch in this process, no Ray, no DeepSpeed."""
    other = RunLayout(root)
    write_clip(other.shard(performer, "main"), small_clip(performer, model))
    finetune_performer(config, other, performer, model, torch_engine, NullTracker(), "")
    return deltas(other, performer)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_tune_trains_many_and_reports_the_broken(tmp_path: Path):
    config, layout, model = small_run(tmp_path, ("ann", "zoe"), max_failures=1)
    misfit, diverging = small_clip("bob", model), small_clip("eve", model)
    write_clip(layout.shard("bob", "main"), replace(misfit, latents=np.zeros((15, 4, 4, 4), np.float32)))
    write_clip(layout.shard("eve", "main"), replace(diverging, latents=np.full_like(diverging.latents, np.nan)))
    names = ["ann", "zoe", "bob", "eve"]
    outcomes = {o.name: o for o in finetune(config, layout, names, FileTracker(tmp_path / "tracking.jsonl", {}))}
    assert list(outcomes) == names
    assert {name for name, o in outcomes.items() if o.ok} == {"ann", "zoe"}
    assert "performer=bob" in outcomes["bob"].error
    assert "delete it and preprocess again" in outcomes["bob"].error
    assert "lower the learning rate" in outcomes["eve"].error
    events = [json.loads(line) for line in (tmp_path / "tracking.jsonl").read_text().splitlines()]
    begun = [e["key"] for e in events if e["event"] == "start" and e["params"]]
    assert (begun.count("finetune/eve"), begun.count("finetune/bob")) == (2, 0)  # retried once; never begun
    finished = {e["key"]: e["status"] for e in events if e["event"] == "finish"}
    assert finished == {"finetune/ann": "FINISHED", "finetune/zoe": "FINISHED", "finetune/bob": "FAILED", "finetune/eve": "FAILED"}
    for name in ("ann", "zoe"):  # one actor trained both: the second found the base as it was
        found, expected = deltas(layout, name), one_process(tmp_path / "twin", config, model, name)
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    again = finetune(config, layout, ["ann", "zoe"], NullTracker())
    assert [(o.name, o.skipped, o.ok) for o in again] == [("ann", True, True), ("zoe", True, True)]


@pytest.mark.slow
def test_two_workers_average_their_clips(tmp_path: Path):
    config, layout, model = small_run(tmp_path, ("ann",), num_workers=2)
    (outcome,) = finetune(config, layout, ["ann"], NullTracker())
    assert outcome.error is None
    clip = read_clip(layout.shard("ann", "main"))

    def twin(part: TrainablePart, step_of: list, num_steps: int) -> dict[str, Tensor]:
        with unfrozen(part):
            engine = torch_engine(part, 1e-3, None)
            train(engine, lambda number: sum(step(number) for step in step_of) / 2, num_steps)
            return {name: p.detach().clone() for name, p in part.parameters.items()}

    workers = [Worker(rank, 2) for rank in (0, 1)]
    denoise = [DenoiserStep(model, clip, config.diffusion.pose_kinds, 4, 0.1, 0.0, "l2", config.run.seed, worker) for worker in workers]
    decode = [DecoderStep(model, clip, 2, config.run.seed, worker) for worker in workers]
    expected = {f"denoiser.{name}": t for name, t in twin(trainable_denoiser(model.denoiser, "temporal"), denoise, 3).items()}
    expected |= {f"decoder.{name}": t for name, t in twin(trainable_decoder(model), decode, 4).items()}
    assert_close(deltas(layout, "ann"), expected)


@pytest.mark.slow
def test_one_worker_and_two_give_the_same_weights_from_equal_batches(tmp_path: Path):
    found = []
    for num_workers in (1, 2):
        config, layout, _ = small_run(tmp_path / str(num_workers), ("ann",), num_workers=num_workers, batch_clips=2)
        (outcome,) = finetune(config, layout, ["ann"], NullTracker())
        assert outcome.error is None
        card = json.loads((layout.finetune("ann") / "card.json").read_text())
        assert (card["num_workers"], card["phases"]["denoiser"]["steps"]) == (num_workers, 3)
        found.append(deltas(layout, "ann"))
    assert_close(found[1], found[0])

from __future__ import annotations

import pytest

from dpscale.config.schema import Config, DiffusionConfig, FinetuneConfig, PreprocessConfig
from dpscale.data.types import InputError
from dpscale.finetune.deepspeed_engine import estimated_states
from dpscale.finetune.memory_plan import GIB, cheapest, gpu_sizes, levels, remedy
from dpscale.finetune.memory_trace import StepMemory
from dpscale.finetune.training_phases import TracedPhase, TracedTraining, traced_training

DENOISER = TracedPhase("denoiser", 8 * GIB, 3 * GIB, GIB // 8, StepMemory(20 * GIB, 22 * GIB, 21 * GIB))
DECODER = TracedPhase("decoder", GIB, GIB, GIB // 8, StepMemory(GIB, GIB, GIB))
TRACED = TracedTraining(DENOISER, DECODER, 2 * GIB, ())
SMALL = Config(diffusion=DiffusionConfig(preset="tiny"), preprocess=PreprocessConfig(size=128))


def config(**finetune: object) -> Config:
    return Config(finetune=FinetuneConfig(**finetune))


def test_without_offload_one_worker_holds_everything():
    need = levels(config(), TRACED)[0].phases["denoiser"]
    assert need.weights == 9 * GIB
    assert need.states == (1 + 2 + 1) * 3 * GIB  # copy, two moments, gradient
    assert need.peak == (9 + 9 + 22) * GIB


def test_each_level_takes_less_of_the_gpu_and_more_of_the_host():
    found = levels(config(), TRACED)
    assert [level.offload for level in found] == ["none", "optimizer", "parameters", "nvme"]
    assert found[0].gpu > found[1].gpu > found[2].gpu > found[3].gpu
    assert found[0].host < found[1].host < found[2].host
    assert found[3].host < found[1].host  # the states are on the disk


def test_workers_share_the_states_and_averages_add_a_copy():
    one, four = (levels(config(offload="optimizer", num_workers=n), TRACED)[1].phases["denoiser"].host for n in (1, 4))
    checkpoint = 9 * GIB  # every worker puts it together
    assert (one - checkpoint) == 4 * (four - checkpoint) == 15 * GIB
    plain, averaged = (levels(config(ema_decay=d), TRACED)[0].phases["denoiser"].peak for d in (None, 0.9))
    assert averaged - plain == 3 * GIB


def test_the_fastest_level_that_fits():
    found = levels(config(), TRACED)
    assert cheapest(found, found[0].gpu) is found[0]
    assert cheapest(found, found[1].gpu) is found[1]
    assert cheapest(found, found[3].gpu - 1) is None


@pytest.mark.slow
def test_a_remedy_is_traced_and_fits():
    smallest = min(level.gpu for level in levels(SMALL, traced_training(SMALL)))
    options, level = remedy(SMALL, smallest - 100 * 2**20)
    assert any("gradient_checkpointing" in option for option in options)
    assert level.gpu <= smallest - 100 * 2**20
    assert remedy(SMALL, 1.0) is None


def test_deepspeed_estimates_the_same_states_without_offload():
    """Its 16-bit training keeps 20 bytes a number, as ours in fp32 with the copy for the next performer: 4 weights, 4 gradient, 8 moments, 4 copy."""
    gpu, _ = estimated_states("none", DENOISER, 1)
    need = levels(config(), TRACED)[0].phases["denoiser"]
    assert gpu == need.weights - DECODER.weights + need.states


@pytest.mark.parametrize("size", [0.0, -3.0, float("nan"), float("inf")])
def test_a_gpu_has_some_memory(size: float):
    with pytest.raises(InputError, match="--gpu-gib"):
        gpu_sizes([24.0, size])

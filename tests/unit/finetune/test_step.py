from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dpscale.config.schema import FinetuneConfig
from dpscale.data.types import InputError
from dpscale.finetune.decoder import DecoderStep
from dpscale.finetune.step import DenoiserStep, Worker, check_clip, num_steps, sample_frames

KINDS = ("keypoints", "iuv")


@pytest.mark.parametrize(
    ("settings", "num_train", "world_size", "expected"),
    [
        ({}, 1440, 1, 1800),  # the paper: one minute at 30 fps, 80 %, 10 epochs, 8 frames an iteration
        ({}, 1440, 2, 900),
        ({"max_steps": 100}, 1440, 1, 100),
        ({"epochs": 0.5}, 80, 1, 5),
        ({}, 3, 1, 4),
        ({"batch_clips": 2}, 1440, 1, 900),  # one worker or two: equal batches, equal steps
        ({"batch_clips": 6, "num_workers": 3}, 1440, 3, 300),
    ],
)
def test_epochs_count_frames(settings: dict, num_train: int, world_size: int, expected: int):
    assert num_steps(FinetuneConfig(**settings), num_train, world_size) == expected


def test_frames_are_random_distinct_and_in_temporal_order():
    draws = [sample_frames(20, 8, torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert all(bool((d.diff() > 0).all()) and len(d) == 8 and d.min() >= 0 and d.max() < 20 for d in draws)
    counts = torch.bincount(torch.cat(draws), minlength=20)
    assert counts.min() > 50  # each frame in 80 of 200 draws on average, sd 7
    assert torch.equal(sample_frames(3, 8, torch.Generator().manual_seed(0)), torch.arange(3))


def test_take_selects_the_same_frames_of_everything(clip):
    frames = np.array([1, 4, 9])
    part = clip.pose.at(frames)
    assert len(part) == 3
    for name in ("keypoints", "iuv", "flow", "flow_valid"):
        np.testing.assert_array_equal(getattr(part, name), getattr(clip.pose, name)[frames])
    np.testing.assert_array_equal(part.motion.rotations, clip.pose.motion.rotations[frames])
    assert part.shape is clip.pose.shape


def test_loss_is_a_function_of_seed_performer_and_sample(model, clip):
    def loss(step: int, **changes: object) -> float:
        return float(replace(DenoiserStep(model, clip, KINDS, 4, 0.1, 1.0, "l2", seed=7), **changes)(step).detach())

    assert loss(3) == loss(3)
    assert loss(3) != loss(4)
    assert loss(3) != loss(3, seed=8)
    assert loss(3) != loss(3, clip=replace(clip, performer="bob"))
    assert loss(1, worker=Worker(1, 2)) == loss(3)  # two workers take the samples 0 1 | 2 3 | ...


def test_what_is_kept_between_steps_changes_no_loss_to_the_bit(model, clip):
    def losses(steps: range, **changes: object) -> list[float]:
        step = replace(DenoiserStep(model, clip, KINDS, 4, 0.1, 1.0, "l2", seed=7), **changes)
        return [float(step(number).detach()) for number in steps]

    whole = losses(range(12))
    assert losses(range(12), cache_bytes=0) == whole
    assert losses(range(12), cache_bytes=100_000) == whole  # some are kept, some forgotten
    assert losses(range(7, 12)) == whole[7:]  # as a resumed run takes them, with nothing kept yet


def test_never_sees_the_held_out_frames(model, clip):
    blank = replace(clip, latents=clip.latents.copy(), frames=clip.frames.copy())
    blank.latents[clip.num_train :] = np.nan
    blank.frames[clip.num_train :] = 0
    denoise, decode = DenoiserStep(model, blank, KINDS, 8, 0.0, 1.0, "l2", seed=0), DecoderStep(model, blank, 8, seed=0)
    assert all(torch.isfinite(denoise(step)) and torch.isfinite(decode(step)) for step in range(4))


def test_dropout_hides_the_identity(model, clip):
    other = replace(clip, image_embedding=clip.image_embedding + 1)

    def losses(dropout: float) -> tuple[float, float]:
        return tuple(float(DenoiserStep(model, c, KINDS, 4, dropout, 0.0, "l2", seed=0)(0).detach()) for c in (clip, other))

    kept, dropped = losses(0.0), losses(0.999999)
    assert kept[0] != kept[1]
    assert dropped[0] == dropped[1]


def test_decoder_loss_is_eq_2(model, clip):
    step = DecoderStep(model, clip, batch_size=clip.num_train, seed=0)
    with torch.no_grad():
        picture = model.autoencoder.decode(torch.from_numpy(clip.latents[: clip.num_train])).numpy()
    truth = clip.frames[: clip.num_train].transpose(0, 3, 1, 2) / 127.5 - 1
    assert float(step(0).detach()) == pytest.approx(float(((picture - truth) ** 2).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": None}, "preprocess the performer's own video"),
        ({"latents": np.zeros((15, 4, 4, 4), np.float32)}, "latents of shape"),
        ({"image_embedding": np.zeros(5, np.float32)}, "image embedding of shape"),
        ({"num_train": 0}, "train_fraction"),
    ],
)
def test_clip_that_does_not_fit_names_shard_and_remedy(model, clip, changes: dict, message: str):
    with pytest.raises(InputError, match=f"shards/ann .*{message}"):
        check_clip(replace(clip, **changes), model, "shards/ann")

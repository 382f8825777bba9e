"""Refreshes by a real, untrained model of the `tiny` family at 32 px: of one video, and by a service for several performers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from dpscale.config.schema import Config, DiffusionConfig, JointConfig, RunConfig
from dpscale.config.sources import VideoConfig
from dpscale.data.array_files import scratch_array
from dpscale.data.checkpoint import commit_folder
from dpscale.data.layout import RunLayout
from dpscale.data.seeds import derive
from dpscale.data.shards import write_clip
from dpscale.diffusion.conditions import pose_maps
from dpscale.diffusion.encoders import to_unit
from dpscale.diffusion.reference import known_frames, reference_pictures
from dpscale.diffusion.weights import PoseVideoModel
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.delta_cache import DeltaCache
from dpscale.joint.refresh import DiffusionRefresh, RefreshService, RefreshStopped
from dpscale.joint.state import RefreshRequest
from dpscale.joint.video import VideoTask
from tests.small_performer import SIZE, small_clip, small_model
from tests.unit.joint.finetuned import write_finetuned

SETTINGS = DiffusionConfig(preset="tiny", sampling_steps=3, guidance_scale=1.0, window=4, stride=2)


@pytest.fixture(scope="module")
def model() -> PoseVideoModel:
    return small_model()


@pytest.fixture(scope="module")
def video(model: PoseVideoModel) -> VideoTask:
    clip = small_clip("someone", model, num_frames=5, num_train=3)
    return VideoTask("someone--self", Config(diffusion=SETTINGS), clip.pose, clip.frames[0], clip.image_embedding, known_frames(clip))


def request(number: int, strength: float, seed: int = 0) -> RefreshRequest:
    guidance = np.random.default_rng(seed).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    return RefreshRequest(number, 0, strength, guidance)


def test_a_first_pass_of_full_strength_ignores_the_guidance(model: PoseVideoModel, video: VideoTask) -> None:
    refresh = DiffusionRefresh(model, video)
    one, other = refresh(request(0, 1.0, seed=0)), refresh(request(0, 1.0, seed=1))
    assert one.shape == (5, SIZE, SIZE, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, other)


def test_a_refresh_follows_its_guidance(model: PoseVideoModel, video: VideoTask) -> None:
    refresh = DiffusionRefresh(model, video)
    assert not np.array_equal(refresh(request(1, 0.4, seed=0)), refresh(request(1, 0.4, seed=1)))


def test_an_identity_denoiser_gives_the_guidance_back(model: PoseVideoModel, video: VideoTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a denoiser that knows the noise that was added, V_p is E_dec(E_enc(V_s)) with the references' detail: nothing else on the way
    changes the picture."""
    asked = request(1, 0.4)
    latents = model.autoencoder.encode(to_unit(asked.guidance))
    shape = (1, latents.shape[1], 5, *latents.shape[2:])
    seed = derive(video.config.run.seed, "refresh", video.name, 1)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    predicts = model.noise_schedule.config.prediction_type

    def knows(noisy: torch.Tensor, timestep: torch.Tensor, conditions: object) -> torch.Tensor:
        clean = latents.transpose(0, 1)[None]
        alpha = model.noise_schedule.alphas_cumprod[timestep[0]]
        whole = {"epsilon": noise, "sample": clean, "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * clean}[predicts]
        return torch.cat([whole[:, :, w] for w in (slice(0, 4), slice(1, 5))])

    monkeypatch.setattr(model.denoiser, "forward", knows)
    references = model.encode_references(reference_pictures(video.known, video.pose.keypoints, video.pose.iuv))
    expected = model.decode(latents, references)
    difference = np.abs(DiffusionRefresh(model, video)(asked).astype(int) - expected)
    assert difference.max() <= 1, "rounding only"


def test_noise_depends_on_the_number_of_the_refresh_and_on_the_video(model: PoseVideoModel, video: VideoTask) -> None:
    other = dataclasses.replace(video, name="other--self")
    pictures = [DiffusionRefresh(model, v)(request(n, 0.5)) for v, n in ((video, 1), (video, 2), (other, 1), (video, 1))]
    np.testing.assert_array_equal(pictures[0], pictures[3])
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_noise_on_the_picture_is_another_start(model: PoseVideoModel, video: VideoTask) -> None:
    """The ablation starts from the encoded noisy picture as it is; its first pass, from noise, is the same."""
    noisy = dataclasses.replace(video, config=video.config.model_copy(update={"joint": JointConfig(method="noisy_image")}))
    plain, other = DiffusionRefresh(model, video), DiffusionRefresh(model, noisy)
    np.testing.assert_array_equal(plain(request(0, 1.0)), other(request(0, 1.0)))
    one = other(request(1, 0.4))
    assert not np.array_equal(one, plain(request(1, 0.4)))
    np.testing.assert_array_equal(one, other(request(1, 0.4)))
    assert not np.array_equal(one, other(request(1, 0.4, seed=1)))


def test_conditions_are_made_once_and_pose_features_again_for_other_weights(
    model: PoseVideoModel, video: VideoTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, refresh = [], DiffusionRefresh(model, video)
    monkeypatch.setattr("dpscale.joint.refresh.reference_pictures", None)
    draw = pose_maps
    monkeypatch.setattr("dpscale.joint.refresh.pose_maps", lambda pose, *rest: drawn.append(len(pose)) or draw(pose, *rest))
    first = refresh(request(1, 0.4))
    np.testing.assert_array_equal(refresh(request(1, 0.4)), first)
    assert sum(drawn) == 5
    bias = next(model.denoiser.pose_encoder.parameters())
    before = bias.detach().clone()
    try:
        bias.data.add_(0.5)
        other = refresh(request(1, 0.4))
        assert sum(drawn) == 10
        assert not np.array_equal(other, first)
    finally:
        bias.data.copy_(before)
    np.testing.assert_array_equal(refresh(request(1, 0.4)), first)


def test_long_videos_may_lie_in_files(model: PoseVideoModel, video: VideoTask, tmp_path: Path) -> None:
    """Mapped guidance, pose and result give the same pictures."""
    asked, out = request(1, 0.4), scratch_array((5, SIZE, SIZE, 3), np.uint8)
    np.save(tmp_path / "guidance.npy", asked.guidance)
    np.save(tmp_path / "iuv.npy", video.pose.iuv)
    mapped = dataclasses.replace(video, pose=dataclasses.replace(video.pose, iuv=np.load(tmp_path / "iuv.npy", mmap_mode="r")))
    from_file = dataclasses.replace(asked, guidance=np.load(tmp_path / "guidance.npy", mmap_mode="r"))
    assert DiffusionRefresh(model, mapped)(from_file, out=out) is out
    np.testing.assert_array_equal(out, DiffusionRefresh(model, video)(asked))


# ----------------------------------------------------------------------------------------- service

WINDOWS, CALLS = 4, 2 * 4
"""Of a service's pass: two steps (0.7 of three), four windows in calls of their own."""
ANN, BEN = VideoConfig(performer="ann"), VideoConfig(performer="ben")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A base and two performers, ann's weights whole, ben's low-rank."""
    root, model = tmp_path_factory.mktemp("service"), small_model()
    model.save(root / "base")
    settings = {"sampling_steps": 3, "guidance_scale": 1.0, "window": 2, "stride": 1, "window_batch": 1}
    config = Config(run=RunConfig(name="run", root=root), diffusion=DiffusionConfig(preset="tiny", weights=str(root / "base"), **settings))
    layout = RunLayout.of(config)
    for seed, (performer, rank) in enumerate((("ann", None), ("ben", 2))):
        write_clip(layout.shard(performer, "main"), small_clip(performer, model, 6 + 5, 6))
        finetuned = write_finetuned(root / performer, model, seed, rank)
        commit_folder(layout.finetune(performer), lambda folder, of=finetuned: copytree(of, folder, dirs_exist_ok=True), {"settings": "test"})
    return config


def service(config: Config) -> RefreshService:
    return RefreshService(config, RunLayout.of(config))


def after(calls: int) -> Callable[[], bool]:
    """Asked before every call: true once `calls` are done."""
    asked = iter(range(CALLS))
    return lambda: next(asked) >= calls


def test_performers_in_turn_get_what_each_gets_alone(run: Config) -> None:
    alone = {video.performer: service(run).answer(video, request(1, 0.7)) for video in (ANN, BEN)}
    together = service(run)
    for video in (ANN, BEN, ANN, BEN):
        np.testing.assert_array_equal(together.answer(video, request(1, 0.7)), alone[video.performer])
    assert not np.array_equal(alone["ann"], alone["ben"])


def test_a_refresh_that_is_stopped_goes_on_elsewhere_to_the_same_bits(run: Config) -> None:
    whole = service(run).answer(ANN, request(1, 0.7))
    one, other = service(run), service(run)
    unfinished = VideoStore.of(run, RunLayout.of(run), ANN).unfinished(1)
    for calls in range(CALLS):
        with pytest.raises(RefreshStopped):
            one.answer(ANN, request(1, 0.7), after(calls))
        progress = unfinished.load()
        assert (progress.step, progress.window) == divmod(calls, WINDOWS)
        other.answer(BEN, request(1, 0.7))
        asked: list[None] = []
        np.testing.assert_array_equal(other.answer(ANN, request(1, 0.7), lambda asked=asked: bool(asked.append(None))), whole)
        assert len(asked) == CALLS - calls, "what was done is not done again"
        unfinished.remove()


def test_one_that_is_stopped_again_and_again_ends(run: Config) -> None:
    whole, workers = service(run).answer(BEN, request(1, 0.7)), (service(run), service(run))
    stops = 0
    for turn in range(2 * CALLS):
        try:
            made = workers[turn % 2].answer(BEN, request(1, 0.7), after(1))
            break
        except RefreshStopped:
            stops += 1
    assert stops == CALLS - 1
    np.testing.assert_array_equal(made, whole)


def test_weights_read_ahead_are_not_read_again(run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, deltas = RunLayout.of(run), DeltaCache(2**30)
    whole = service(run).answer(BEN, request(1, 0.7))
    assert deltas.prefetch(layout.finetune("ben"))
    monkeypatch.setattr("dpscale.joint.delta_cache.read_delta", None)
    np.testing.assert_array_equal(RefreshService(run, layout, deltas).answer(BEN, request(1, 0.7)), whole)

from __future__ import annotations

import torch

from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.video_conditions import encode_poses, video_conditions
from dpscale.diffusion.windows import blend, windows
from tests.unit.diffusion.models import random_conditions, small_model

SETTINGS = DiffusionConfig(preset="tiny", window=4, stride=2)


@torch.no_grad()
def test_features_are_those_of_the_windows_blended_and_each_frame_is_drawn_once() -> None:
    model, conditions, drawn = small_model().denoiser, random_conditions(1, 9), []

    def draw(frames: slice) -> dict[str, torch.Tensor]:
        drawn.extend(range(frames.start, frames.stop))
        return {kind: maps[0, frames] for kind, maps in conditions.pose_maps.items()}

    where = windows(9, 4, 2)
    expected = blend([model.encode_pose({k: m[:, w] for k, m in conditions.pose_maps.items()})[0] for w in where], where, 9)
    assert torch.equal(encode_poses(model, draw, 9, SETTINGS), expected)
    assert drawn == list(range(9))


@torch.no_grad()
def test_a_batch_of_windows_is_told_what_each_clip_would_be() -> None:
    model, conditions = small_model().denoiser, random_conditions(1, 6)
    video, where = video_conditions(model, conditions, SETTINGS), [slice(0, 4), slice(2, 6)]
    plain, guided = video.at(where, guided=False), video.at(where, guided=True)
    for n, window in enumerate(where):
        assert torch.equal(plain.pose_features[n], video.pose_features[:, window])
        assert torch.equal(plain.reference_latents[n], conditions.reference_latents[0, :, window])
        assert torch.equal(plain.image_embedding[n], conditions.image_embedding[0])
    assert torch.equal(guided.image_embedding, torch.cat([plain.image_embedding, torch.zeros_like(plain.image_embedding)]))
    assert torch.equal(guided.pose_features, torch.cat([plain.pose_features] * 2))
    assert torch.equal(guided.reference_latents, torch.cat([plain.reference_latents] * 2))

from __future__ import annotations

import numpy as np
import torch

from dpscale.diffusion.conditions import pose_maps
from dpscale.diffusion.reference import apart, known_frames, reference_pictures
from dpscale.finetune.frame_conditions import FrameConditions, Kept

KINDS = ("keypoints", "iuv")


def test_kept_equals_made_anew_to_the_bit_in_any_company(model, clip):
    keeps, forgets = FrameConditions(model, clip, KINDS), FrameConditions(model, clip, KINDS, max_bytes=0)
    rng = np.random.default_rng(0)
    for _ in range(12):
        frames = np.sort(rng.choice(clip.num_train, int(rng.integers(1, 6)), replace=False))
        gap = int(rng.integers(3))
        found, expected = keeps(frames, gap), forgets(frames, gap)
        assert torch.equal(found.reference_latents, expected.reference_latents)
        assert torch.equal(found.image_embedding, expected.image_embedding)
        assert all(torch.equal(found.pose_maps[kind], expected.pose_maps[kind]) for kind in KINDS)


def test_is_the_pose_and_the_frames_more_than_the_gap_away(model, clip):
    conditions, frames = FrameConditions(model, clip, KINDS), np.array([0, 3, 5, 11])
    seen = []
    for gap in (0, 2, 8):
        found, pose = conditions(frames, gap), clip.pose.at(frames)
        pictures = reference_pictures(known_frames(clip), pose.keypoints, pose.iuv, apart(clip.num_train, gap)[frames])
        torch.testing.assert_close(found.reference_latents, model.encode_references(pictures).latents)
        for kind, expected in pose_maps(pose, KINDS, model.denoiser.pose_encoder.resolution).items():
            torch.testing.assert_close(found.pose_maps[kind][0], expected)
        np.testing.assert_array_equal(found.image_embedding[0, 0].numpy(), clip.image_embedding)
        seen.append(found.reference_latents)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_memory_has_a_bound_and_what_was_not_asked_for_longest_goes():
    kept, made = Kept(max_bytes=3 * 40), []

    def get(key: int) -> torch.Tensor:
        return kept.get(key, lambda: made.append(key) or torch.full((10,), float(key)))

    for key in (1, 2, 3, 1, 4, 1, 3, 2):
        assert torch.equal(get(key), torch.full((10,), float(key)))
    assert made == [1, 2, 3, 4, 2]  # 4 took the place of 2, since 1 had been asked for again
    nothing = Kept(max_bytes=39)
    assert [float(nothing.get(0, lambda: torch.full((10,), 7.0))[0]) for _ in range(2)] == [7.0, 7.0]

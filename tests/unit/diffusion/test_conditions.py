import numpy as np
import torch

from dpscale.diffusion.conditions import iuv_maps, skeleton_maps


def test_iuv_maps_keep_coverage_when_they_shrink():
    iuv = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    iuv[0, :4, :3] = torch.tensor([5, 255, 51], dtype=torch.uint8)
    maps = iuv_maps(iuv, 4)
    assert maps.shape == (1, 26, 4, 4)
    assert maps[0, 4, 0].tolist() == [1.0, 0.5, 0.0, 0.0]
    assert maps[0, [k for k in range(24) if k != 4]].sum() == 0
    assert maps[0, 24, 0, 0] == 1.0
    assert np.isclose(maps[0, 25, 0, 0], 0.2)


def test_skeleton_is_drawn_along_its_limbs_and_not_for_unseen_points():
    keypoints = torch.zeros(2, 18, 3)
    keypoints[0, 1] = torch.tensor([16.0, 8.0, 1.0])
    keypoints[0, 8] = torch.tensor([16.0, 56.0, 1.0])
    maps = skeleton_maps(keypoints, 64, 32)
    assert maps[0, :, 16, 8].max() > 0.3
    assert maps[0, :, 16, 20].max() < 0.01
    assert maps[1].max() == 0

"""The body fit against bodies whose landmarks are known."""

import numpy as np
import pytest
import torch

from dpscale.body import fit
from dpscale.body.camera import project
from dpscale.body.first_guess import torso_frame
from dpscale.body.fit_skeleton import LANDMARK_OF_KEYPOINT, fit_skeleton, nearest_moving, rotation_matrices
from dpscale.body.motion import load_motion
from dpscale.body.outline import Outlines, Rim
from dpscale.body.parametric import SCALE_SEGMENTS, load_body
from dpscale.body.rendered import render_performer
from dpscale.body.surface_maps import rasterise_body
from dpscale.data.types import BodyShape

FOCAL, CENTER = 400.0, (128.0, 120.0)


@pytest.fixture(scope="module")
def walker():
    """Exact landmarks of a body with long legs, walking, 12 frames."""
    body = load_body()
    log_scales = np.zeros(len(SCALE_SEGMENTS))
    log_scales[[SCALE_SEGMENTS.index("thigh"), SCALE_SEGMENTS.index("shin")]] = np.log(1.08)
    shape = BodyShape(np.zeros(body.num_betas), log_scales)
    world = load_motion("walk", body, body.shaped(shape), 15.0, 12)
    to_camera = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    rotations, root = to_camera @ world.rotations, world.root @ to_camera.T + [0, 1.0, 3.5]
    names = list(LANDMARK_OF_KEYPOINT)
    regressor = body.keypoint_regressor[[body.keypoint_names.index(name) for name in names]]
    points = regressor @ body.skin(body.shaped(shape), rotations, root)
    landmarks, space = np.zeros((12, 33, 3)), np.zeros((12, 33, 3))
    index = list(LANDMARK_OF_KEYPOINT.values())
    landmarks[:, index, :2], landmarks[:, index, 2] = project(points, FOCAL, CENTER)[0], 1.0
    space[:, index] = points - points[:, [names.index("left_hip"), names.index("right_hip")]].mean(1, keepdims=True)
    return shape, rotations, root, points, landmarks, space


def keypoints_of(shape, motion, body):
    names = [body.keypoint_names.index(name) for name in LANDMARK_OF_KEYPOINT]
    return body.keypoint_regressor[names] @ body.skin(body.shaped(shape), motion.rotations, motion.root)


def test_a_known_body_is_recovered(walker):
    _, _, root, points, landmarks, space = walker
    found, motion = fit.fit_body(landmarks, space, FOCAL, CENTER, steps=100)
    fitted = keypoints_of(found, motion, load_body())
    height = np.ptp(landmarks[0, :, 1][landmarks[0, :, 2] > 0])
    miss = np.linalg.norm(project(fitted, FOCAL, CENTER)[0] - project(points, FOCAL, CENTER)[0], axis=-1)
    assert np.median(miss) < 0.015 * height
    relative = fitted - fitted[:, :1] - (points - points[:, :1])
    assert np.median(np.linalg.norm(relative, axis=-1)) < 0.05  # metres
    assert np.abs(motion.root[:, 2] - root[:, 2]).max() < 0.4  # depth and size trade against each other
    assert not found.betas.any()


def test_forward_kinematics_equals_the_bodys_own(walker):
    """The fit moves 30 bones; skinning of all 104 with the same rotations must give the same keypoints."""
    shape, body = walker[0], load_body()
    skeleton = fit_skeleton(body)
    rng = torch.Generator().manual_seed(0)
    angles = 0.3 * torch.randn(2, len(skeleton.bones), 3, generator=rng)
    root, log_scales = torch.randn(2, 3, generator=rng), torch.as_tensor(shape.log_scales, dtype=torch.float32)
    scales = fit._scales(skeleton, log_scales)
    rotations, joints = skeleton.pose(torch.eye(3).expand(2, 3, 3), angles, root, scales)
    every = rotations.numpy()[:, nearest_moving(body, skeleton.bones)].astype(float)
    names = [body.keypoint_names.index(name) for name in LANDMARK_OF_KEYPOINT]
    slow = body.keypoint_regressor[names] @ body.skin(body.shaped(shape), every, root.numpy().astype(float))
    np.testing.assert_allclose(skeleton.keypoints(rotations, joints, scales).numpy(), slow, atol=1e-4)  # float32 sums


def test_an_outline_teaches_width_and_place():
    """Landmarks that are all 2 px off, and the exact outline of a dressed performer: the body ends up inside it."""
    clip, body = render_performer(1_000_004, "walk", 6, 8.0, 96, 1, yaw=0.0, with_flow=False), load_body()
    motion = clip.pose.motion
    posed = body.skin(body.shaped(clip.pose.shape), motion.rotations.astype(float), motion.root.astype(float))
    names = list(LANDMARK_OF_KEYPOINT)
    points = body.keypoint_regressor[[body.keypoint_names.index(name) for name in names]] @ posed
    landmarks, space = np.zeros((6, 33, 3)), np.zeros((6, 33, 3))
    index = list(LANDMARK_OF_KEYPOINT.values())
    landmarks[:, index, :2], landmarks[:, index, 2] = project(points, motion.focal_px, motion.center_px)[0] + [2, 0], 1.0
    space[:, index] = points - points[:, [names.index("left_hip"), names.index("right_hip")]].mean(1, keepdims=True)

    def overlap(outlines):
        shape, found = fit.fit_body(landmarks, space, motion.focal_px, motion.center_px, 80, body, outlines)
        shaped = body.shaped(shape)
        vertices = [body.skin(shaped, r[None].astype(float), t[None].astype(float))[0] for r, t in zip(found.rotations, found.root, strict=True)]
        made = np.stack([rasterise_body(body, v, found.focal_px, found.center_px, 96, 96).face >= 0 for v in vertices])
        truth = clip.mask >= 128
        return shape, (made & truth).sum() / (made | truth).sum()

    bare, without = overlap(None)
    dressed, with_outline = overlap(Outlines(clip.mask, 96.0, 4))
    assert not len(bare.girths)
    assert with_outline > without + 0.15
    assert with_outline > 0.7
    assert dressed.girths.max() > 0.005


def test_repeats_to_the_bit(walker):
    *_, landmarks, space = walker
    first, second = (fit.fit_body(landmarks, space, FOCAL, CENTER, steps=5) for _ in range(2))
    np.testing.assert_array_equal(first[1].rotations, second[1].rotations)
    np.testing.assert_array_equal(first[0].log_scales, second[0].log_scales)


def test_a_long_clip_in_blocks_has_the_same_loss_and_gradients(walker, monkeypatch):
    """Twelve frames whole and in blocks of five: memory is all that differs."""
    _, _, root, _, landmarks, space = walker
    body, skeleton = load_body(), fit_skeleton(load_body())
    rng = np.random.default_rng(0)
    frames, vertices = np.sort(rng.integers(0, 12, 40)), rng.integers(0, len(body.vertices), 40)
    rim = Rim(frames, vertices, rng.uniform(0, 256, (40, 2)), rng.normal(size=(40, 2)), np.zeros(40))
    contour = fit._contour(body, skeleton, body.vertices, rim, 12)
    targets = fit._targets(landmarks, space, FOCAL, CENTER)
    frame = torch.as_tensor(torso_frame(space), dtype=torch.float32)

    def gradients():
        angles = 0.1 * torch.randn(12, len(skeleton.bones), 3, generator=torch.Generator().manual_seed(1))
        start = fit._Unknowns(angles, torch.as_tensor(root, dtype=torch.float32), torch.full((len(SCALE_SEGMENTS),), 0.05))
        unknowns = fit._Unknowns(*(t.clone().requires_grad_() for t in (start.angles, start.root, start.log_scales)))
        loss = fit._loss(skeleton, targets, frame, unknowns, contour)
        loss.backward()
        return loss, unknowns.angles.grad, unknowns.root.grad, unknowns.log_scales.grad

    whole = gradients()
    monkeypatch.setattr(fit, "_BLOCK_FRAMES", 5)
    for found, expected in zip(gradients(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # float32 sums in another order


def test_two_frames_are_enough(walker):
    *_, landmarks, space = walker
    _, motion = fit.fit_body(landmarks[:2], space[:2], FOCAL, CENTER, steps=3)
    assert np.isfinite(motion.rotations).all()


def test_rotation_matrices_have_a_gradient_at_zero():
    vector = torch.zeros(3, requires_grad=True)
    rotation_matrices(vector).sum().backward()
    assert torch.isfinite(vector.grad).all()

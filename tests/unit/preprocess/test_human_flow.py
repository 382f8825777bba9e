"""A pixel's flow holds if, and only if, its surface point is visible in both frames (METHOD 5)."""

from dataclasses import replace

import numpy as np
import pytest

from dpscale.body.parametric import load_body
from dpscale.body.rendered import person, render_performer
from dpscale.data.types import BodyMotion
from dpscale.preprocess.human_flow import flow_to
from dpscale.preprocess.mesh import MeshFrame, mesh_frames

SEED, SIZE = 1_000_002, 128


@pytest.fixture(scope="module")
def standing() -> BodyMotion:
    return render_performer(SEED, "walk", 1, 15.0, SIZE, 1, yaw=0.0).pose.motion


def turned(standing: BodyMotion, degrees: float) -> tuple[MeshFrame, MeshFrame]:
    """The body, and the body turned about the camera's vertical axis."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    both = replace(standing, rotations=np.concatenate([standing.rotations, turn @ standing.rotations]), root=standing.root[[0, 0]])
    here, there = mesh_frames(load_body(), person(SEED).shaped, both, SIZE)
    return here, there


def surface_points(frame: MeshFrame, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Where on the body's rest surface each pixel's point lies, in metres; infinitely far off the body."""
    faces, rest = load_body().faces, person(SEED).shaped.vertices
    corners = rest[faces[frame.raster.face[rows, columns]]]
    points = np.einsum("pk,pkc->pc", frame.raster.barycentric[rows, columns], corners)
    return np.where(frame.raster.face[rows, columns, None] >= 0, points, np.inf)


def test_valid_pixels_show_the_same_point_in_both_frames(standing: BodyMotion) -> None:
    here, there = turned(standing, 40)
    flow, valid = flow_to(load_body(), here, there, standing)
    rows, columns = np.nonzero(valid)
    target = np.floor(np.stack([columns, rows], 1) + 0.5 + flow[rows, columns].astype(float) * SIZE).astype(int)
    apart = np.linalg.norm(surface_points(here, rows, columns) - surface_points(there, target[:, 1], target[:, 0]), axis=1)
    assert len(apart) > 800
    assert np.quantile(apart, 0.95) < 0.03  # a px is about 1.5 cm wide here, and longer where the surface is seen from the side
    assert np.median(apart) < 0.01


def test_points_that_are_hidden_in_the_second_frame_are_not_valid(standing: BodyMotion) -> None:
    """Each point's vertex that faces the camera in the first frame and away from it in the second is hidden there."""
    here, there = turned(standing, 80)
    _, valid = flow_to(load_body(), here, there, standing)
    rows, columns = np.nonzero(here.raster.face >= 0)
    corners = there.vertices[load_body().faces[here.raster.face[rows, columns]]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    before = here.vertices[load_body().faces[here.raster.face[rows, columns]]]
    outwards = np.sign((np.cross(before[:, 1] - before[:, 0], before[:, 2] - before[:, 0]) * before[:, 0]).sum(1))  # seen now: towards the camera
    away = (normal * corners[:, 0]).sum(1) * outwards / np.linalg.norm(normal, axis=1) / np.linalg.norm(corners[:, 0], axis=1)
    hidden = away < -0.5  # the surface faces away from the camera by 30 degrees or more
    assert hidden.sum() > 50
    assert valid[rows, columns][hidden].mean() < 0.05  # thin parts are within the depth tolerance of their own front
    assert valid[rows, columns][away > 0.8].mean() > 0.7  # the rest is behind an arm


def test_nothing_of_the_front_is_seen_from_behind(standing: BodyMotion) -> None:
    here, there = turned(standing, 180)
    _, valid = flow_to(load_body(), here, there, standing)
    assert (here.raster.face >= 0).sum() > 1000
    assert valid.sum() < 0.05 * (here.raster.face >= 0).sum()


def test_what_leaves_the_picture_is_not_valid(standing: BodyMotion) -> None:
    aside = replace(standing, rotations=standing.rotations[[0, 0]], root=standing.root[[0, 0]] + [[0, 0, 0], [50.0, 0, 0]])
    here, there = mesh_frames(load_body(), person(SEED).shaped, aside, SIZE)
    assert not flow_to(load_body(), here, there, standing)[1].any()

"""Rendered performers: a person drawn from a seed does a recorded movement, with exact truth for every pixel.

Seeds of HELD_OUT_SEED and above are never trained on by `dpscale pretrain`: tests and demos use those."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter

from dpscale.body import looks
from dpscale.body.backdrop import backdrop
from dpscale.body.camera import Viewpoint, project
from dpscale.body.motion import WorldMotion, load_motion, standing_on_floor
from dpscale.body.outfit import DressedBody, Outfit, dress, random_outfit
from dpscale.body.parametric import SCALE_SEGMENTS, BodyModel, ShapedBody, load_body
from dpscale.body.raster import Raster
from dpscale.body.rest_surface import vertex_normals
from dpscale.body.surface_maps import iuv_map, mesh_flow, rasterise_body
from dpscale.data.types import BodyMotion, BodyShape, Pose

HELD_OUT_SEED = 1_000_000
TRAINING_MOTIONS = ("walk", "run", "spinkick", "kick", "punch", "jump", "spin", "cartwheel", "backflip", "getup_faceup", "roll")
"""dance_a and dance_b are kept out of training: tests and the demo use them."""

_EYE_HEIGHT_M = 1.2


@dataclass(frozen=True)
class RenderedClip:
    """A rendered clip and its exact truth."""

    frames: UInt8[np.ndarray, "N H W 3"]
    pose: Pose
    mask: UInt8[np.ndarray, "N H W"]
    """Coverage of the body, 0..255 (antialiased)."""


@dataclass(frozen=True)
class Person:
    """Everything that a performer's seed decides."""

    shape: BodyShape
    shaped: ShapedBody
    outfit: Outfit
    dressed: DressedBody


def person(seed: int) -> Person:
    """The performer with this seed: body and clothes."""
    rng = np.random.default_rng([seed, 0])
    body = load_body()
    shape = BodyShape(np.clip(rng.normal(size=body.num_betas), -2, 2), np.zeros(len(SCALE_SEGMENTS)))
    shaped, outfit = body.shaped(shape), random_outfit(rng)
    return Person(shape, shaped, outfit, dress(body, shaped, outfit))


def render_performer(
    seed: int,
    motion: str,
    num_frames: int,
    fps: float,
    size: int,
    supersampling: int = 2,
    yaw: float | None = None,
    start_s: float = 0.0,
    with_flow: bool = True,
) -> RenderedClip:
    """Renders performer `seed` doing `motion`, `size` x `size` px, the body filling the square over all frames.

    The seed decides body, clothes, light, background, camera and, unless `yaw` (radians; 0 faces the camera) is given, the view.
    Without `with_flow` the flow stays zero and invalid, which halves the time."""
    rng, body, who = np.random.default_rng([seed, 1]), load_body(), person(seed)
    yaw = float(rng.normal(0, 0.6)) if yaw is None else yaw
    world = load_motion(motion, body, who.shaped, fps, num_frames, start_s).turned(yaw)
    world = standing_on_floor(world, body.skin(who.shaped, world.rotations, world.root, who.dressed.vertices))
    viewpoint = Viewpoint.looking_at(np.array([0, -rng.uniform(3.0, 5.0), _EYE_HEIGHT_M + rng.uniform(-0.4, 0.4)]), np.array([0, 0, 0.9]))
    seen = world.seen_from(viewpoint)
    surface = body.skin(who.shaped, seen.rotations, seen.root, who.dressed.vertices)
    motion_in_crop = _framed(seen, surface, size, margin=float(rng.uniform(1.05, 1.4)), shift=rng.normal(0, 0.02, 2))
    scene = _Scene(body, who, surface, motion_in_crop, size, supersampling, viewpoint, rng)
    pictures = [scene.picture(n) for n in range(num_frames)]
    return RenderedClip(
        np.stack([p[0] for p in pictures]), _exact_pose(body, who, seen, surface, motion_in_crop, size, with_flow), np.stack([p[1] for p in pictures])
    )


def _framed(seen: WorldMotion, surface: Float[np.ndarray, "N V 3"], size: int, margin: float, shift: np.ndarray) -> BodyMotion:
    """Intrinsics of a square crop that holds the body in all frames."""
    plane = surface[..., :2] / surface[..., 2:]
    low, high = plane.min((0, 1)), plane.max((0, 1))
    focal = size / (margin * (high - low).max())
    room = 0.4 * (margin - 1) / margin
    center = size * (0.5 + shift.clip(-room, room)) - focal * (low + high) / 2
    return BodyMotion(seen.rotations, seen.root, float(focal), (float(center[0]), float(center[1])))


def _exact_pose(body: BodyModel, who: Person, seen: WorldMotion, surface: np.ndarray, motion: BodyMotion, size: int, with_flow: bool) -> Pose:
    rasters = [rasterise_body(body, v, motion.focal_px, motion.center_px, size, size) for v in surface]
    flow, valid = np.zeros((len(surface), size, size, 2)), np.zeros((len(surface), size, size), bool)
    for n in range(len(surface) - 1 if with_flow else 0):
        step = mesh_flow(body.faces, rasters[n], surface[n + 1], rasters[n + 1], motion.focal_px, motion.center_px)
        flow[n], valid[n] = step.offset, step.valid
    joints = body.keypoints(body.skin(who.shaped, seen.rotations, seen.root))
    points, _ = project(joints, motion.focal_px, motion.center_px)
    inside = ((points >= 0) & (points < size)).all(-1, keepdims=True)
    keypoints = np.concatenate([points, inside], -1).astype(np.float32)
    iuv = np.stack([iuv_map(body, r) for r in rasters])
    return Pose(keypoints, iuv, flow.astype(np.float32), valid, who.shape, motion)


class _Scene:
    """Draws frames of one clip; background and light stay the same."""

    def __init__(self, body: BodyModel, who: Person, surface, motion: BodyMotion, size: int, supersampling: int, viewpoint: Viewpoint, rng) -> None:
        self.body, self.who, self.surface, self.samples, self.size = body, who, surface, supersampling, size
        self.focal = motion.focal_px * supersampling
        self.center = (motion.center_px[0] * supersampling, motion.center_px[1] * supersampling)
        forward = viewpoint.rotation @ [0, 1.0, 0]
        horizon = self.focal * forward[1] / forward[2] + self.center[1] + rng.uniform(0.02, 0.12) * size * supersampling
        self.background, self.floor = backdrop(rng, size * supersampling, horizon)
        direction = np.array([rng.uniform(-0.8, 0.8), -rng.uniform(0.4, 1.0), rng.uniform(0.5, 1.2)])
        direction = viewpoint.rotation @ (direction / np.linalg.norm(direction))
        self.light = looks.Light(
            direction, rng.uniform(0.85, 1.1) * np.array([1.0, rng.uniform(0.92, 1.0), rng.uniform(0.85, 1.0)]), float(rng.uniform(0.25, 0.5))
        )
        self.ground_up = viewpoint.rotation @ [0, 0, 1.0]
        self.ground_height = viewpoint.to_camera(np.zeros(3)) @ self.ground_up

    def picture(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame n: uint8 [H, W, 3] and its mask, uint8 [H, W]."""
        fine = self.size * self.samples
        raster = rasterise_body(self.body, self.surface[n], self.focal, self.center, fine, fine)
        image = self.background * (1 - 0.5 * self._shadow(n, fine) * self.floor)[..., None]
        seen = raster.face >= 0
        image[seen] = self._body_colour(n, raster, seen)
        image = np.clip(image, 0, 1).reshape(self.size, self.samples, self.size, self.samples, 3).mean((1, 3)) ** (1 / 1.1)
        mask = seen.reshape(self.size, self.samples, self.size, self.samples).mean((1, 3))
        return (image * 255 + 0.5).astype(np.uint8), (mask * 255 + 0.5).astype(np.uint8)

    def _body_colour(self, n: int, raster: Raster, seen: np.ndarray) -> Float[np.ndarray, "P 3"]:
        face, weights = raster.face[seen], raster.barycentric[seen]
        colour = looks.albedo(self.body, self.who.shaped, self.who.dressed.masks, self.who.outfit, face, weights)
        corners = self.body.faces[face]
        normal = np.einsum("pk,pkc->pc", weights, vertex_normals(self.surface[n], self.body.faces)[corners])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        view = -np.einsum("pk,pkc->pc", weights, self.surface[n][corners])
        return looks.shade(colour, normal, view / np.linalg.norm(view, axis=1, keepdims=True), self.light)

    def _shadow(self, n: int, fine: int) -> Float[np.ndarray, "H W"]:
        """Soft shadow on the floor: vertices carried along the light to the ground."""
        height = self.surface[n] @ self.ground_up - self.ground_height
        ground = self.surface[n] - self.light.direction * (height / (self.light.direction @ self.ground_up))[:, None]
        points, depth = project(ground, self.focal, self.center)
        cells = np.floor(points).astype(int)
        inside = (cells >= 0).all(1) & (cells < fine).all(1) & (depth > 0)
        hit = np.zeros((fine, fine))
        hit[cells[inside, 1], cells[inside, 0]] = 1
        return np.clip(gaussian_filter(hit, fine / 100) * 3, 0, 1)

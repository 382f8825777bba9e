"""Colour of a dressed body's surface and its light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from dpscale.body.outfit import Outfit
from dpscale.body.parametric import BodyModel, ShapedBody


@dataclass(frozen=True)
class Light:
    """One directional light and an ambient one."""

    direction: Float[np.ndarray, " 3"]
    """Towards the light, unit length, in the axes of the vertices."""
    colour: Float[np.ndarray, " 3"]
    ambient: float


def waves(points: Float[np.ndarray, "P 3"], frequency: float, seed: int) -> Float[np.ndarray, " P"]:
    """Smooth band-limited noise in about -1..1, fixed to the points."""
    rng = np.random.default_rng(seed)
    total = np.zeros(len(points))
    for octave in range(3):
        directions, phases = rng.normal(size=(2, 3)), rng.uniform(0, 6, 2)
        bend = 3 * np.sin(points @ directions[1] * frequency * 1.3**octave + phases[0])
        total += np.sin(points @ directions[0] * frequency * 1.7**octave + bend + phases[1]) / 1.5**octave
    return total / 2.1


def albedo(
    body: BodyModel,
    shaped: ShapedBody,
    masks: dict[str, np.ndarray],
    outfit: Outfit,
    face: Int[np.ndarray, " P"],
    barycentric: Float[np.ndarray, "P 3"],
) -> Float[np.ndarray, "P 3"]:
    """Reflectance in 0..1 of the surface points; everything is painted in the rest pose, so it moves with the body."""
    corners = body.faces[face]

    def at(values: np.ndarray) -> np.ndarray:
        return np.einsum("pk,pk...->p...", barycentric, values[corners])

    x = at(shaped.vertices)
    seed = outfit.texture_seed
    colour = np.array(outfit.skin) * (1 + 0.05 * waves(x, 30, seed) + 0.04 * waves(x, 90, seed + 1))[:, None]
    colour = _paint_face(body, shaped, outfit, x, at(body.eyes) > 0.5, colour)
    hair = at(masks["hair"]) > 0.5
    colour[hair] = (np.array(outfit.hair) * (0.8 + 0.35 * waves(x * [3, 1, 0.4], 60, seed + 2))[:, None])[hair]
    trousers = at(masks["trousers"]) > 0.5
    colour[trousers] = (np.array(outfit.trousers) * (1 + 0.10 * waves(x, 70, seed + 3) + 0.12 * waves(x, 8, seed + 4))[:, None])[trousers]
    shirt = at(masks["shirt"]) > 0.5
    fabric = 1 + 0.05 * waves(x, 80, seed + 5) + 0.08 * waves(x, 10, seed + 6)
    colour[shirt] = (
        np.where(_pattern(outfit.pattern, x - shaped.heads[body.bone_index["spine01"]])[:, None], outfit.accent, outfit.shirt) * fabric[:, None]
    )[shirt]
    shoes, floor = at(masks["shoes"]) > 0.5, shaped.vertices[:, 2].min()
    colour[shoes] = np.where((x[:, 2] < floor + 0.022)[:, None], outfit.soles, outfit.shoes)[shoes]
    return np.clip(colour, 0, 1)


def _paint_face(body: BodyModel, shaped: ShapedBody, outfit: Outfit, x: np.ndarray, is_eye: np.ndarray, colour: np.ndarray) -> np.ndarray:
    for side in "LR":
        eye = shaped.heads[body.bone_index[f"eye.{side}"]]
        same_side = x[:, 0] * eye[0] > 0
        across, above = np.abs(np.abs(x[:, 0]) - abs(eye[0])), x[:, 2] - eye[2] - 0.023
        colour[same_side & (across < 0.021) & (np.abs(above) < 0.004) & (x[:, 1] < eye[1])] = np.array(outfit.hair) * 0.9
        radius = np.hypot(x[:, 0] - eye[0], x[:, 2] - eye[2])
        colour[is_eye & same_side] = (0.9, 0.88, 0.86)
        colour[is_eye & same_side & (radius < 0.0065)] = (0.1, 0.07, 0.05)
    mouth = (shaped.heads[body.bone_index["eye.L"]] + shaped.heads[body.bone_index["eye.R"]]) / 2 - [0, 0, 0.068]
    lips = (np.abs(x[:, 0]) < 0.024) & (np.abs(x[:, 2] - mouth[2]) < 0.007) & (x[:, 1] < mouth[1])
    colour[lips] = colour[lips] * 0.4 + np.array([0.62, 0.28, 0.27]) * 0.5
    return colour


def _pattern(pattern: str, x: Float[np.ndarray, "P 3"]) -> np.ndarray:
    """True where the accent colour goes; `x` is relative to the upper spine."""
    if pattern == "stripes":
        return np.mod(x[:, 2] / 0.07, 1) < 0.4
    if pattern == "bars":
        return np.mod(x[:, 0] / 0.09, 1) < 0.4
    if pattern == "dots":
        return np.hypot(np.mod(x[:, 0] / 0.08, 1) - 0.5, np.mod(x[:, 2] / 0.08, 1) - 0.5) < 0.28
    if pattern == "panel":
        return (np.hypot(x[:, 0], x[:, 2] + 0.12) < 0.09) & (x[:, 1] < 0)
    return np.zeros(len(x), bool)


def shade(
    colour: Float[np.ndarray, "P 3"], normals: Float[np.ndarray, "P 3"], view: Float[np.ndarray, "P 3"], light: Light
) -> Float[np.ndarray, "P 3"]:
    """Wrapped diffuse light, ambient light and a faint highlight. `view` points to the camera, unit length."""
    diffuse = np.clip((normals @ light.direction + 0.25) / 1.25, 0, 1)[:, None] * light.colour
    half = light.direction + view
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    highlight = 0.06 * np.clip((normals * half).sum(1), 0, 1) ** 20
    return colour * (0.85 * diffuse + light.ambient) + highlight[:, None]

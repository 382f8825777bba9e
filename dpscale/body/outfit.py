"""Clothes of rendered performers: regions of the body's surface, smoothed and inflated; colours, patterns, hair, skin."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dpscale.body.bake import SEGMENTS
from dpscale.body.parametric import BodyModel, ShapedBody
from dpscale.body.rest_surface import vertex_normals

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Outfit:
    """What a performer wears; colours are linear RGB in 0..1."""

    shirt: Colour
    accent: Colour
    trousers: Colour
    shoes: Colour
    soles: Colour
    hair: Colour
    skin: Colour
    pattern: str
    """Of the shirt: plain, stripes, bars, dots or panel."""
    sleeve: float
    """Covered part of the arm: 0.4 short .. 2 to the wrist (1 is the elbow)."""
    leg: float
    """Covered part of the leg: 0.5 shorts .. 2 to the ankle (1 is the knee)."""
    hairline: float
    """0 is bald, 1 covers the whole scalp."""
    texture_seed: int


def random_outfit(rng: np.random.Generator) -> Outfit:
    """An outfit drawn from `rng`."""

    def cloth() -> Colour:
        return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, 0.85) ** 1.3, rng.uniform(0.04, 0.95))

    tone = rng.uniform()
    skin = tuple(float(v) for v in np.array([0.30, 0.17, 0.11]) * (1 - tone) + np.array([0.90, 0.68, 0.56]) * tone)
    grey = rng.uniform(0.02, 0.6)
    hair = [(0.04, 0.03, 0.03), (0.13, 0.08, 0.05), (0.30, 0.18, 0.08), (0.55, 0.42, 0.22), (grey, grey, grey)][rng.integers(5)]
    return Outfit(
        shirt=cloth(), accent=cloth(), trousers=cloth(), shoes=cloth(), soles=cloth(), hair=hair, skin=skin,
        pattern=str(rng.choice(["plain", "plain", "stripes", "bars", "dots", "panel"])),
        sleeve=float(rng.choice([0.05, 0.7, 0.7, 1.2, 2.0, 2.0])), leg=float(rng.choice([0.45, 0.85, 1.2, 2.0, 2.0, 2.0])),
        hairline=float(rng.choice([0.0, 0.7, 0.85, 1.0])), texture_seed=int(rng.integers(2**31)),
    )  # fmt: skip


@dataclass(frozen=True)
class DressedBody:
    """A clothed rest surface of the same topology as the body, and where each garment is (0 or 1 a vertex)."""

    vertices: Float[np.ndarray, "V 3"]
    masks: dict[str, Float[np.ndarray, " V"]]


def dress(body: BodyModel, shaped: ShapedBody, outfit: Outfit) -> DressedBody:
    """Clothes as smoothed, inflated regions of the surface: no second layer, so the topology and its charts stay."""
    masks = _garments(body, shaped, outfit)
    edges = np.unique(np.sort(np.concatenate([body.faces[:, :2], body.faces[:, 1:], body.faces[:, [2, 0]]]), 1), axis=0)
    degree = np.bincount(edges.ravel(), minlength=len(body.vertices)).astype(float)[:, None]

    def smooth(values: np.ndarray, where: np.ndarray, times: int) -> np.ndarray:
        values = values.copy()
        for _ in range(times):
            total = np.stack([_scatter(edges, values[:, c]) for c in range(values.shape[1])], 1)
            values += where * 0.5 * (total / degree - values)
        return values

    cloth = np.maximum(masks["shirt"], masks["trousers"])[:, None]
    vertices = smooth(smooth(shaped.vertices, cloth, 14), masks["shoes"][:, None], 30)
    soft = smooth(np.stack([masks["shirt"], masks["trousers"], masks["shoes"], masks["hair"]], 1), np.ones((1, 1)), 2)
    thickness = soft @ [0.014, 0.010, 0.012, 0.018]
    x, y, z = shaped.vertices.T
    folds = 1 + 0.25 * np.sin(34 * z + 9 * np.sin(17 * x)) * np.sin(23 * y + 11 * x)
    return DressedBody(vertices + vertex_normals(vertices, body.faces) * (thickness * folds)[:, None], masks)


def _scatter(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.bincount(edges[:, 0], values[edges[:, 1]], len(values)) + np.bincount(edges[:, 1], values[edges[:, 0]], len(values))


def _garments(body: BodyModel, shaped: ShapedBody, outfit: Outfit) -> dict[str, np.ndarray]:
    v, heads, bones = shaped.vertices, shaped.heads, body.bone_index

    def weight(*segments: str) -> np.ndarray:
        return sum(body.vertex_segment[:, SEGMENTS.index(s)] for s in segments)

    def along(start: str, end: str) -> np.ndarray:
        a, b = heads[bones[start]], heads[bones[end]]
        return (v - a) @ (b - a) / ((b - a) @ (b - a))

    arm_reach, leg_reach = np.zeros(len(v)), np.zeros(len(v))
    for side in "LR":
        for reach, upper, lower, names in (
            (arm_reach, "uarm", "larm", ("upperarm01", "lowerarm01", "wrist")),
            (leg_reach, "uleg", "lleg", ("upperleg01", "lowerleg01", "foot")),
        ):
            joints = [f"{n}.{side}" for n in names]
            on_upper, on_lower = weight(upper + side) > 0.5, weight(lower + side, ("hand" if upper == "uarm" else "foot") + side) > 0.5
            reach[on_upper] = along(*joints[:2])[on_upper].clip(0, 1)
            reach[on_lower] = 1 + along(*joints[1:])[on_lower].clip(0, 9)
    hip, neck = heads[bones["upperleg01.L"]][2], heads[bones["neck01"]]
    neckline = v[:, 2] < neck[2] + 0.01 - 0.05 * np.clip((neck[1] - v[:, 1]) / 0.1, 0, 1)
    arms, legs, torso = weight("uarmL", "uarmR", "larmL", "larmR"), weight("ulegL", "ulegR", "llegL", "llegR"), weight("torso")
    shirt = (((torso > 0.5) & (v[:, 2] > hip)) | ((arms > 0.5) & (arm_reach < outfit.sleeve))) & neckline
    trousers = (((legs > 0.5) & (leg_reach < outfit.leg)) | ((torso > 0.5) & (v[:, 2] < hip + 0.12))) & ~shirt
    shoes = weight("footL", "footR") > 0.5
    masks = {"shirt": shirt, "trousers": trousers & ~shoes, "shoes": shoes, "hair": _hair(body, v, weight("head"), outfit.hairline)}
    return {name: mask.astype(float) for name, mask in masks.items()}


def _hair(body: BodyModel, v: np.ndarray, on_head: np.ndarray, hairline: float) -> np.ndarray:
    if hairline == 0:
        return np.zeros(len(v), bool)
    skull = v[(on_head > 0.9) & (body.eyes < 0.5)]
    top, height = skull[:, 2].max(), np.ptp(skull[:, 2])
    back = (v[:, 1] - skull[:, 1].min()) / np.ptp(skull[:, 1])
    line = top - hairline * height * np.interp(back, [0, 0.25, 0.45, 0.55, 0.75, 1.0], [0.17, 0.2, 0.35, 0.52, 0.66, 0.66])
    return (on_head > 0.7) & (v[:, 2] > line) & (body.eyes < 0.5)

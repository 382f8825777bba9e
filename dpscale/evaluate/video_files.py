"""Pictures that people look at: pose drawings, contact sheets."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from dpscale.data.types import Pose

LIMBS = (
    (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""Pairs of OPENPOSE18 keypoints that a line joins."""

# Golden-angle steps: neighbouring part numbers get distant hues.
PART_COLOURS = np.array([(0.0, 0.0, 0.0)] + [colorsys.hsv_to_rgb(part * 0.618034 % 1.0, 0.65, 0.9) for part in range(1, 256)])

MIN_CONFIDENCE = 0.3
INK, PAPER = (32, 34, 38), (255, 255, 255)


def write_png(path: Path, picture: UInt8[np.ndarray, "H W 3"]) -> None:
    Image.fromarray(picture).save(path, format="PNG")


def pose_pictures(pose: Pose) -> UInt8[np.ndarray, "N H W 3"]:
    """The driving pose as people read it: body parts as colours, shaded by u and v, under the skeleton."""
    return np.stack([_skeleton(_colours(iuv), points) for iuv, points in zip(pose.iuv, pose.keypoints, strict=True)])


def _colours(iuv: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Part -> hue, u and v -> brightness; black off the body."""
    brightness = 0.55 + 0.3 * iuv[..., 1:2] / 255.0 + 0.15 * iuv[..., 2:3] / 255.0
    return np.rint(255 * PART_COLOURS[iuv[..., 0]] * brightness).astype(np.uint8)


def _skeleton(picture: UInt8[np.ndarray, "H W 3"], keypoints: Float[np.ndarray, "18 3"]) -> UInt8[np.ndarray, "H W 3"]:
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    thickness = max(1, round(picture.shape[0] / 128))
    seen = np.isfinite(keypoints).all(axis=1) & (keypoints[:, 2] >= MIN_CONFIDENCE)
    # Keypoints count from the corner of the first pixel, PIL from its centre.
    points = [tuple(map(float, p)) for p in np.nan_to_num(keypoints[:, :2]) - 0.5]
    for a, b in LIMBS:
        if seen[a] and seen[b]:
            draw.line([points[a], points[b]], fill=(255, 255, 255), width=thickness)
    for (x, y), visible in zip(points, seen, strict=True):
        if visible:
            draw.ellipse([x - thickness, y - thickness, x + thickness, y + thickness], fill=(255, 214, 64))
    return np.asarray(image)


def contact_sheet(rows: Mapping[str, UInt8[np.ndarray, "N H W 3"]], columns: int = 8, cell_px: int = 160) -> UInt8[np.ndarray, "A B 3"]:
    """One labelled row per entry of `rows`, one column per frame, evenly spaced from the first to the last.

    A row with a single frame (the reference) fills the first column only."""
    length = max(len(frames) for frames in rows.values())
    picked = evenly(length, columns)
    label, gap = max(72, cell_px // 2), 4
    font = ImageFont.load_default(size=12)
    sheet = Image.new("RGB", (label + len(picked) * (cell_px + gap) + gap, 20 + len(rows) * (cell_px + gap) + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, n in enumerate(picked):
        draw.text((label + gap + column * (cell_px + gap) + cell_px / 2, 10), f"frame {n}", fill=INK, font=font, anchor="mm")
    for row, (name, frames) in enumerate(rows.items()):
        top = 20 + row * (cell_px + gap)
        draw.text((6, top + cell_px / 2), name.replace(" ", "\n"), fill=INK, font=font, anchor="lm")
        for column, n in enumerate(picked if len(frames) == length else range(len(frames[:1]))):
            sheet.paste(_fitted(frames[n], cell_px), (label + gap + column * (cell_px + gap), top))
    return np.asarray(sheet)


def evenly(length: int, count: int) -> Int[np.ndarray, " C"]:
    """At most `count` indices from 0 to length - 1, both included, without repeats."""
    return np.unique(np.rint(np.linspace(0, length - 1, min(count, length))).astype(int))


def _fitted(frame: UInt8[np.ndarray, "H W 3"], cell_px: int) -> Image.Image:
    height, width = frame.shape[:2]
    scale = cell_px / max(height, width)
    size = (round(width * scale), round(height * scale))
    return Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)

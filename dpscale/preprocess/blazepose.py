"""BlazePose's two networks on ai-edge-litert: a detector on the whole picture, then landmarks in a turned square around the person.

The networks (.tflite, Apache-2.0) are read from the installed package mediapipe, which is never imported. Pixel centres are at .5."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from jaxtyping import Float, UInt8

from dpscale.data.types import InputError
from dpscale.preprocess.sampling import bilinear

NUM_LANDMARKS = 33
_DETECTOR_PX = 224
LANDMARK_PX = 256
"""Side of the square that the landmark network sees, and of its silhouette."""
_STRIDES = (8, 16, 32, 32, 32)
_HEATMAP_PX, _HEATMAP_REACH = 64, 3
_MIN_SCORE = 0.5
_SAME_PERSON_IOU = 0.3
_ROI_MARGIN = 1.25
"""MediaPipe's enlargement of the square around the person."""


@dataclass(frozen=True)
class Roi:
    """A square around a person, turned so that the body stands upright in it."""

    x: float
    y: float
    side: float
    """Center and side in px of the picture."""
    angle: float
    """Radians, clockwise in the picture."""

    @classmethod
    def through(cls, center: np.ndarray, rim: np.ndarray) -> Roi:
        """From BlazePose's two alignment points: middle of the hips, and a point on the circle around the body above the head."""
        up = rim - center
        return cls(float(center[0]), float(center[1]), float(2 * np.hypot(*up) * _ROI_MARGIN), float(np.arctan2(up[1], up[0]) + np.pi / 2))

    def to_picture(self, points: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 2"]:
        """Points given in -0.5 .. 0.5 of the square -> px of the picture."""
        return self.side * points @ _turn(self.angle).T + [self.x, self.y]

    def from_picture(self, points: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 2"]:
        """px of the picture -> -0.5 .. 0.5 of the square."""
        return (points - [self.x, self.y]) @ _turn(self.angle) / self.side

    def cut(self, picture: UInt8[np.ndarray, "H W 3"], size: int) -> Float[np.ndarray, "size size 3"]:
        """The square as `size` x `size` px, bilinear, black outside the picture, values 0..255."""
        shrink = max(1, int(self.side / size / 1.5))
        if shrink > 1:
            picture = _block_mean(picture, shrink)
        grid = (np.arange(size) + 0.5) / size - 0.5
        points = self.to_picture(np.stack(np.meshgrid(grid, grid), -1)) / shrink - 0.5
        return bilinear(picture, points)


@dataclass(frozen=True)
class Reading:
    """What the landmark network says about one person in one picture."""

    landmarks: Float[np.ndarray, "33 3"]
    """x, y in px of the picture and visibility 0..1."""
    world: Float[np.ndarray, "33 3"]
    """Metres from the middle of the hips, in camera axes (x right, y down, z forward)."""
    silhouette: Float[np.ndarray, "256 256"]
    """Probability of the person, in the square `roi`."""
    roi: Roi
    next_roi: Roi
    """Where to look for the person in the next frame."""


def network_files() -> tuple[Path, Path]:
    """The detector and the best landmark network of the installed mediapipe. Raises InputError with the remedy."""
    spec = importlib.util.find_spec("mediapipe")
    if spec is None or spec.origin is None:
        raise InputError("keypoints need the package mediapipe: run `make setup`, or `pip install --no-deps -r requirements-data.txt`")
    modules = Path(spec.origin).parent / "modules"
    detector = modules / "pose_detection" / "pose_detection.tflite"
    landmarks = [modules / "pose_landmark" / f"pose_landmark_{size}.tflite" for size in ("heavy", "full", "lite")]
    found = [path for path in landmarks if path.is_file()]
    if not detector.is_file() or not found:
        raise InputError(f"{modules}: holds no BlazePose networks: reinstall with `pip install --no-deps --force-reinstall -r requirements-data.txt`")
    return detector, found[0]


class BlazePose:
    """Finds people and their landmarks. Deterministic for a given number of threads."""

    def __init__(self, num_threads: int = 1) -> None:
        detector, landmarks = network_files()
        self.name = landmarks.stem
        self._detector = Interpreter(str(detector), num_threads=num_threads)
        self._landmarks = Interpreter(str(landmarks), num_threads=num_threads)
        for network in (self._detector, self._landmarks):
            network.allocate_tensors()
        self._anchors = _anchors()

    def detect(self, picture: UInt8[np.ndarray, "H W 3"]) -> list[Roi]:
        """Everyone in the picture, the nearest to the camera (the largest) first."""
        height, width = picture.shape[:2]
        whole = Roi(width / 2, height / 2, float(max(height, width)), 0.0)
        outputs = _run(self._detector, whole.cut(picture, _DETECTOR_PX) / 127.5 - 1)
        boxes, logits = sorted(outputs, key=lambda o: -o.shape[-1])
        score = _sigmoid(logits[:, 0])
        likely = np.flatnonzero(score > _MIN_SCORE)
        centers = self._anchors[likely, None] + boxes[likely].reshape(len(likely), 6, 2) / _DETECTOR_PX
        corners = np.concatenate([centers[:, :1] - _half_size(boxes[likely]), centers[:, :1] + _half_size(boxes[likely])], 1).reshape(-1, 4)
        people = [whole.to_picture(np.average(centers[one, 2:4], 0, score[likely][one]) - 0.5) for one in _grouped(corners, score[likely])]
        return sorted((Roi.through(*points) for points in people), key=lambda roi: -roi.side)

    def read(self, picture: UInt8[np.ndarray, "H W 3"], roi: Roi) -> Reading | None:
        """Landmarks of the person in `roi`, or None if there is nobody."""
        by_size = {out.size: out for out in _run(self._landmarks, roi.cut(picture, LANDMARK_PX) / 255)}
        if float(by_size[1].ravel()[0]) < _MIN_SCORE:
            return None
        raw = by_size[39 * 5].reshape(39, 5).astype(float)
        points = roi.to_picture(_refined(raw[:, :2] / LANDMARK_PX, _sigmoid(by_size[_HEATMAP_PX**2 * 39])) - 0.5)
        world = by_size[39 * 3].reshape(39, 3)[:NUM_LANDMARKS].astype(float)
        world[:, :2] = world[:, :2] @ _turn(roi.angle).T
        landmarks = np.concatenate([points, _sigmoid(raw[:, 3:4])], 1)[:NUM_LANDMARKS]
        return Reading(landmarks, world, _sigmoid(by_size[LANDMARK_PX**2].reshape(LANDMARK_PX, LANDMARK_PX)), roi, Roi.through(*points[33:35]))


def _run(network: Interpreter, image: np.ndarray) -> list[np.ndarray]:
    network.set_tensor(network.get_input_details()[0]["index"], image[None].astype(np.float32))
    network.invoke()
    return [network.get_tensor(out["index"])[0] for out in network.get_output_details()]


def _refined(points: Float[np.ndarray, "39 2"], heatmaps: Float[np.ndarray, "64 64 39"]) -> Float[np.ndarray, "39 2"]:
    """Each point (0..1) moved to the centre of mass of its heatmap nearby, where that is sure (MediaPipe's refinement: 7 x 7 cells,
    a cell's place is its index). It takes away a third of the error on rendered performers."""
    refined = points.copy()
    for k, (column, row) in enumerate(np.floor(points * _HEATMAP_PX).astype(int)):
        rows = np.arange(max(0, row - _HEATMAP_REACH), min(_HEATMAP_PX, row + _HEATMAP_REACH + 1))
        columns = np.arange(max(0, column - _HEATMAP_REACH), min(_HEATMAP_PX, column + _HEATMAP_REACH + 1))
        weight = heatmaps[rows[:, None], columns, k]
        if weight.size and weight.max() >= _MIN_SCORE:
            refined[k] = np.array([weight.sum(0) @ columns, weight.sum(1) @ rows]) / weight.sum() / _HEATMAP_PX
    return refined


def _anchors() -> Float[np.ndarray, "A 2"]:
    """Anchor centres of the detector in 0..1: two per cell and layer, layers of one stride together."""
    layers = []
    for stride in sorted(set(_STRIDES)):
        cells = _DETECTOR_PX // stride
        centers = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(centers, centers), -1).reshape(-1, 2)
        layers.append(np.repeat(grid, 2 * _STRIDES.count(stride), 0))
    return np.concatenate(layers)


def _half_size(boxes: Float[np.ndarray, "K 12"]) -> Float[np.ndarray, "K 1 2"]:
    return boxes[:, None, 2:4] / _DETECTOR_PX / 2


def _grouped(corners: Float[np.ndarray, "K 4"], score: Float[np.ndarray, " K"]) -> list[np.ndarray]:
    """Indices of boxes that show the same person, the best person first (greedy, by overlap with the best box left)."""
    left, groups = np.argsort(-score, kind="stable"), []
    while len(left):
        same = _iou(corners[left[0]], corners[left]) >= _SAME_PERSON_IOU
        same[0] = True
        groups.append(left[same])
        left = left[~same]
    return groups


def _iou(box: Float[np.ndarray, " 4"], boxes: Float[np.ndarray, "K 4"]) -> Float[np.ndarray, " K"]:
    overlap = (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])).clip(0).prod(1)
    return overlap / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - overlap + 1e-12)


def _turn(angle: float) -> Float[np.ndarray, "2 2"]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x.astype(float), -100, 100)))


def _block_mean(picture: np.ndarray, shrink: int) -> Float[np.ndarray, "h w 3"]:
    """Sums of whole numbers, so exact; by the place in the block, which is several times faster than a mean over two axes of length `shrink`."""
    height, width = picture.shape[0] // shrink * shrink, picture.shape[1] // shrink * shrink
    total = np.zeros((height // shrink, width // shrink, 3), np.uint32)
    for row, column in product(range(shrink), repeat=2):
        total += picture[row:height:shrink, column:width:shrink]
    return total / shrink**2

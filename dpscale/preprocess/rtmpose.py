"""RTMPose's networks (Jiang et al. 2023) from a local ONNX file: 17 keypoints of one person in a box, as OpenPose's 18.

onnxruntime runs them. It is optional: it is imported when a network is loaded. Pixel centres are at .5 in pictures given and returned;
inside, the network's input counts pixels from 0 at the first pixel's centre, as its training did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import affine_transform

from dpscale.data.types import InputError

_MEAN, _STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
"""Of the training pictures, RGB 0..255."""
_INPUT_PX = (192, 256)
"""Width and height of the input where the file leaves them open."""
_PADDING = 1.25
_SPLIT = 2.0
"""SimCC bins per px of the input."""
_ORDERS = (17, 26, 133)
"""Numbers of keypoints whose first 17 are COCO's: COCO, Halpe with feet, COCO-WholeBody."""
_OPENPOSE_FROM_COCO = (0, (5, 6), 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_FILE = "give an RTMPose network with SimCC outputs, as OpenMMLab publishes them (end2end.onnx)"


@dataclass(frozen=True)
class Window:
    """The part of a picture that the network sees, `width` x `height` px in its input."""

    center: Float[np.ndarray, " 2"]
    """x, y in px of the picture."""
    scale: float
    """Px of the picture per px of the input."""
    width: int
    height: int

    @classmethod
    def around(cls, box: Float[np.ndarray, " 4"], width: int, height: int) -> Window:
        """A box (x0, y0, x1, y1), padded and widened or heightened to the input's aspect ratio around the same center."""
        sides = _PADDING * np.maximum(box[2:] - box[:2], 1)
        return cls((box[:2] + box[2:]) / 2, float((sides / [width, height]).max()), width, height)

    def to_picture(self, points: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 2"]:
        """Px of the input (first pixel's centre at 0) -> px of the picture (at .5)."""
        return self.center + (points - np.array([self.width, self.height]) / 2) * self.scale

    def cut(self, picture: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "h w 3"]:
        """The window, bilinear, black outside the picture, 0..255. Much larger pictures are averaged first: else they would alias."""
        shrink = max(1, int(self.scale / 1.5))
        first, last = self.to_picture(np.zeros(2)), self.to_picture(np.array([self.width, self.height], float))
        limits, margin = picture.shape[1::-1], 3 * shrink  # bilinear reads up to two averaged px beyond
        low, high = (np.rint(edge).clip(0, limits).astype(int) for edge in (first - margin, last + margin))
        num_columns, num_rows = (high - low) // shrink
        shape = (self.height, self.width, 3)
        if not num_columns or not num_rows:
            return np.zeros(shape)
        part = picture[low[1] : low[1] + num_rows * shrink, low[0] : low[0] + num_columns * shrink]
        small = part.reshape(num_rows, shrink, num_columns, shrink, 3).mean((1, 3))
        x, y = (first - low) / shrink - 0.5
        step = self.scale / shrink
        return affine_transform(small, np.array([step, step, 1]), np.array([y, x, 0]), shape, order=1, mode="grid-constant")


class RTMPose:
    """Keypoints of a person in a box."""

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        """Loads the network. Raises InputError with the remedy if onnxruntime is missing or the file is something else."""
        self.name = path.stem
        self._session = _session(path, num_threads)
        inputs, outputs = self._session.get_inputs(), [out.name for out in self._session.get_outputs()]
        if len(inputs) != 1 or not {"simcc_x", "simcc_y"} <= set(outputs):
            raise InputError(f"{path}: has {len(inputs)} inputs and the outputs {', '.join(outputs)}: {_FILE}")
        self._path, self._input = path, inputs[0].name
        self._width, self._height = _input_px(path, inputs[0].shape)

    def read(self, picture: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, " 4"] | None = None) -> Float[np.ndarray, "18 3"]:
        """OpenPose's keypoints of the person in `box` (x0, y0, x1, y1 px; none: the whole picture): x, y px and confidence 0..1."""
        whole = np.array([0, 0, picture.shape[1], picture.shape[0]], float)
        window = Window.around(whole if box is None else box, self._width, self._height)
        image = ((window.cut(picture) - _MEAN) / _STD).transpose(2, 0, 1)[None].astype(np.float32)
        x, y = self._session.run(["simcc_x", "simcc_y"], {self._input: image})
        if x.shape[1] not in _ORDERS or x.shape[:2] != y.shape[:2]:
            raise InputError(f"{self._path}: gives {x.shape[1]} keypoints, known are networks for {', '.join(map(str, _ORDERS))}: {_FILE}")
        found = decode_simcc(x[0], y[0])
        return openpose18_from_coco(np.concatenate([window.to_picture(found[:17, :2]), found[:17, 2:]], 1))


def follow_with_rtmpose(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]], network: RTMPose, boxes: Float[np.ndarray, "N 4"] | None
) -> Float[np.ndarray, "N 18 3"]:
    """OpenPose's keypoints in all frames, given the person's box in each (people.Person.in_all_frames; none: the whole picture)."""
    return np.stack([network.read(frame, None if boxes is None else boxes[n]) for n, frame in enumerate(frames)])


def decode_simcc(x: Float[np.ndarray, "K X"], y: Float[np.ndarray, "K Y"]) -> Float[np.ndarray, "K 3"]:
    """Keypoints from SimCC's classification of x and of y: place of the maximum in px of the input, and the lower maximum as
    confidence, 0..1."""
    places = np.stack([x.argmax(1), y.argmax(1)], 1) / _SPLIT
    confidence = np.minimum(x.max(1), y.max(1)).clip(0, 1)
    return np.concatenate([places, confidence[:, None]], 1).astype(float)


def openpose18_from_coco(keypoints: Float[np.ndarray, "*b 17 3"]) -> Float[np.ndarray, "*b 18 3"]:
    """COCO's 17 keypoints in OPENPOSE18's order; the neck is the middle of the shoulders, as sure as the less sure of them."""
    parts = [keypoints[..., list(np.atleast_1d(index)), :] for index in _OPENPOSE_FROM_COCO]
    return np.stack([np.concatenate([part[..., :2].mean(-2), part[..., 2:].min(-2)], -1) for part in parts], -2)


def _input_px(path: Path, shape: list[int | str | None]) -> tuple[int, int]:
    """Width and height of the network's input. Axes that the file leaves open have a name or None."""
    batch, channels, height, width = shape if len(shape) == 4 else (0, 0, 0, 0)
    if (isinstance(batch, int) and batch != 1) or (isinstance(channels, int) and channels != 3):
        raise InputError(f"{path}: takes input of shape {shape}, 1 x 3 x height x width is needed: {_FILE}")
    return (width if isinstance(width, int) else _INPUT_PX[0], height if isinstance(height, int) else _INPUT_PX[1])


def _session(path: Path, num_threads: int):
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{path}: RTMPose needs the package onnxruntime: `pip install onnxruntime`, or use BlazePose's keypoints") from error
    if not path.is_file():
        raise InputError(f"{path}: no such file: {_FILE}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception for each fault, and no common one
        raise InputError(f"{path}: not a network that onnxruntime can load ({error}): {_FILE}") from error

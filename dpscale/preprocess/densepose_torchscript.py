"""DensePose from a local TorchScript file, for example an export of detectron2's DensePose (densepose_rcnn_R_50_FPN).

The module is called with one picture, uint8 [3, H, W], RGB, and returns what tools built on such exports (controlnet_aux) expect, a
tuple of five tensors about K people:

    boxes        [K, 4]          x0, y0, x1, y1 in px of the picture
    coarse_segm  [K, C, S, S]    logits, C = 2 (background, body) or 15: whatever is not channel 0 is body
    fine_segm    [K, 25, S, S]   logits of the background and of parts 1..24
    u, v         [K, 25, S, S]   chart coordinates 0..1 on each part

A sixth tensor `scores` [K] may stand before or after them; people below 0.5 are then left out. The file is code: take it only from
where you would take a program from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from dpscale.data.types import InputError
from dpscale.preprocess.decode import check_is_file

_MIN_SCORE = 0.5
_CHANNELS = 25
_OUTPUT = "boxes [K, 4], coarse_segm [K, C, S, S], fine_segm, u, v [K, 25, S, S] and perhaps scores [K]"


@dataclass(frozen=True)
class _People:
    """What the network says about K people."""

    boxes: Float[Tensor, "K 4"]
    coarse: Float[Tensor, "K C s1 s2"]
    fine: Float[Tensor, "K 25 s1 s2"]
    u: Float[Tensor, "K 25 s1 s2"]
    v: Float[Tensor, "K 25 s1 s2"]


class DensePoseNetwork:
    """Raises InputError, naming the file, if it is no TorchScript or does not answer as this module says."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        check_is_file(path)
        self._path, self._device = path, torch.device(device)
        try:
            self._network = torch.jit.load(str(path), map_location=self._device).eval()
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path}: is no TorchScript file ({_first_line(error)}): export the network with torch.jit.trace or script") from error

    @torch.inference_mode()
    def __call__(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """IUV of the largest person, the one nearest the camera; all background where nobody is seen."""
        height, width = picture.shape[:2]
        iuv = np.zeros((height, width, 3), np.uint8)
        people = self._people(torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).to(self._device))
        if not len(people.boxes):
            return iuv
        size = people.boxes[:, 2:] - people.boxes[:, :2]
        k = int(size.prod(1).argmax())
        left, top, right, bottom = (int(side) for side in people.boxes[k].tolist())
        drawn = _drawn(people, k, max(bottom - top, 1), max(right - left, 1)).cpu().numpy()
        x, y = max(left, 0), max(top, 0)
        seen = drawn[y - top : max(height - top, 0), x - left : max(width - left, 0)]
        iuv[y : y + seen.shape[0], x : x + seen.shape[1]] = seen
        return iuv

    def _people(self, picture: UInt8[Tensor, "3 H W"]) -> _People:
        try:
            outputs = self._network(picture)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, torch.jit.Error) as error:
            raise InputError(f"{self._path}: cannot be called with one uint8 picture [3, H, W] ({_first_line(error)})") from error
        tensors = [out.float() for out in outputs if isinstance(out, Tensor)] if isinstance(outputs, tuple | list) else []
        about = [tensor for tensor in tensors if tensor.ndim > 1]
        scores = [tensor for tensor in tensors if tensor.ndim == 1]
        if len(about) != 5 or len(scores) > 1 or not _agree(about, scores):
            shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors) or type(outputs).__name__
            raise InputError(f"{self._path}: answers with {shapes}: a tuple of {_OUTPUT} is asked for")
        kept = scores[0] >= _MIN_SCORE if scores else slice(None)
        return _People(*(tensor[kept] for tensor in about))


def _agree(about: list[Tensor], scores: list[Tensor]) -> bool:
    boxes, coarse, *parts = about
    count, side = len(boxes), coarse.shape[2:]
    return (
        boxes.shape == (count, 4) and coarse.ndim == 4 and len(coarse) == count
        and all(part.shape == (count, _CHANNELS, *side) for part in parts) and all(len(score) == count for score in scores)
    )  # fmt: skip


def _drawn(people: _People, k: int, height: int, width: int) -> UInt8[Tensor, "height width 3"]:
    """Person k in its box: each map is resized to the box before a decision is made, so that edges are smooth."""

    def resized(maps: Float[Tensor, "K C s1 s2"]) -> Float[Tensor, "C height width"]:
        return F.interpolate(maps[k : k + 1], (height, width), mode="bilinear", align_corners=False)[0]

    part = resized(people.fine).argmax(0) * (resized(people.coarse).argmax(0) > 0)
    uv = [resized(chart).gather(0, part[None])[0].clamp(0, 1) * (part > 0) for chart in (people.u, people.v)]
    return torch.stack([part, *((255 * chart).round() for chart in uv)], -1).to(torch.uint8)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()

"""The crop of an IUV map: parts are names, not amounts, so nothing is averaged."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from dpscale.preprocess.crop import Crop


def crop_iuv(crop: Crop, iuv: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "S S 3"]:
    """The square as `crop.size` x `crop.size` px, nearest neighbour; background beyond the picture, where no body is known."""
    centers = np.floor((np.arange(crop.size) + 0.5) / crop.scale).astype(int)
    rows, columns = crop.top + centers, crop.left + centers
    height, width = iuv.shape[:2]
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    return np.where(inside[..., None], iuv[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)], 0).astype(np.uint8)

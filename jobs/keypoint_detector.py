"""What evaluate measures keypoints with: preprocess's detector. The two stages may not know each other, jobs may know both."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from dpscale.data.types import InputError
from dpscale.preprocess.blazepose import BlazePose
from dpscale.preprocess.keypoints import track_person


def detect_keypoints(frames: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N 18 3"]:
    """OpenPose-18 in px and confidence; NaN in every entry of a frame where nobody was found."""
    blazepose = BlazePose()
    try:
        track = track_person("the made video", frames, blazepose, min_detected=0.0)
    except InputError:  # nobody in any frame: a bad video, which is a result here
        return np.full((len(frames), 18, 3), np.nan)
    return np.where(track.found[:, None, None], track.openpose18(), np.nan)

"""Nouns that two stages share. numpy only: importable without torch and ray."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

OPENPOSE18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist", "right_hip",
    "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
"""Order of the 18 keypoints (OpenPose's COCO model)."""


@dataclass(frozen=True)
class BodyShape:
    """Who: identity parameters of the embedded body."""

    betas: Float[np.ndarray, " K"]
    """Weights of the shape basis, in standard deviations of its phenotypes."""
    log_scales: Float[np.ndarray, " S"]
    """Natural logarithms of the lengths of body segments and, last, of the whole body (see body.parametric.SEGMENTS)."""
    girths: Float[np.ndarray, " G"] = field(default_factory=lambda: np.zeros(0))
    """Metres that clothes, hair and build add to the bare surface (see body.rest_surface); empty: nothing."""


@dataclass(frozen=True)
class BodyMotion:
    """What: a body in front of one camera, frame by frame. Camera axes: x right, y down, z forward, metres."""

    rotations: Float[np.ndarray, "N B 3 3"]
    """Rotation of each bone, from the rest pose to camera axes."""
    root: Float[np.ndarray, "N 3"]
    """Position of the root joint in the camera's frame, in metres."""
    focal_px: float
    """Focal length in px of the square crop."""
    center_px: tuple[float, float]
    """Principal point in px of the crop (x, y)."""


@dataclass(frozen=True)
class Pose:
    """Where every part of the body is, in every frame of a clip of N frames of H x W px: what drives the diffusion model."""

    keypoints: Float[np.ndarray, "N 18 3"]
    """x, y in px of the crop (pixel centres at .5) and confidence 0..1; OPENPOSE18 order."""
    iuv: UInt8[np.ndarray, "N H W 3"]
    """Part 1..24 (0: background) in DensePose's numbering, u and v scaled to 0..255, in body.parametric's own charts."""
    flow: Float[np.ndarray, "N H W 2"]
    """3D-aware human flow n -> n+1 (METHOD 5): (dx / W, dy / H); zero in the last frame."""
    flow_valid: Bool[np.ndarray, "N H W"]
    """True where the pixel's surface point is visible in n and in n+1; False everywhere in the last frame."""
    shape: BodyShape
    motion: BodyMotion

    def __len__(self) -> int:
        return len(self.keypoints)

    def at(self, frames: slice | Int[np.ndarray, " F"]) -> Pose:
        """The pose in the given frames. Flow leads to the next frame of the whole sequence, so it is left as it was."""
        motion = replace(self.motion, rotations=self.motion.rotations[frames], root=self.motion.root[frames])
        return replace(
            self, keypoints=self.keypoints[frames], iuv=self.iuv[frames], flow=self.flow[frames], flow_valid=self.flow_valid[frames], motion=motion
        )


def keypoint_distance(known: Float[np.ndarray, "K 18 3"], driving: Float[np.ndarray, "N 18 3"], size: tuple[int, int]) -> Float[np.ndarray, "N K"]:
    """How far each known frame's pose is from each driving frame's: mean distance of keypoints, weighted with both confidences.

    In units of the picture's sides (`size`: height, width). Place and scale count as well as posture: a person standing elsewhere
    is a wrong picture."""
    sides = np.array([size[1], size[0]], np.float64)
    apart = np.linalg.norm((known[None, ..., :2] - driving[:, None, :, :2]) / sides, axis=-1)
    weight = known[None, ..., 2] * driving[:, None, :, 2] + 1e-6
    return (apart * weight).sum(-1) / weight.sum(-1)


@dataclass(frozen=True)
class Clip:
    """One preprocessed clip of one performer, or a driving sequence (then without frames and latents)."""

    performer: str
    clip: str
    fps: float
    num_train: int
    """Frames 0 .. num_train-1 train, the rest tests. Equal to the length for a driving sequence."""
    pose: Pose
    frames: UInt8[np.ndarray, "N H W 3"] | None = None
    latents: Float[np.ndarray, "N C h w"] | None = None
    """E_enc(I_n), scaled as the denoiser takes them (the encoder is frozen, so these stay valid)."""
    image_embedding: Float[np.ndarray, " D"] | None = None
    """CLIP image embedding of the reference frame (frame 0)."""
    mask: UInt8[np.ndarray, "N H W"] | None = None
    """How much of each pixel shows the person, 0..255, clothes and hair included; None: not known beyond the body's IUV."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Source hash, settings hash, estimator names, package versions."""

    def __len__(self) -> int:
        return len(self.pose)


@dataclass(frozen=True)
class Outcome:
    """How one piece of a stage ended. One bad piece never stops a batch."""

    stage: str
    name: str
    seconds: float
    error: str | None = None
    """None, or what went wrong and what to do about it, in one paragraph."""
    skipped: bool = False
    """Finished by an earlier run of the same command."""
    note: str = ""
    """What the user should know although all went well."""

    @property
    def ok(self) -> bool:
        return self.error is None


class InputError(ValueError):
    """The user's input cannot be used; the message names the file or field and the remedy. Never retried."""

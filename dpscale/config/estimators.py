"""Which estimators find pose and surface, and how their results are smoothed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dpscale.config.section import Section


class BlazePoseKeypoints(Section):
    """BlazePose, whose networks the package mediapipe brings."""

    kind: Literal["blazepose"] = "blazepose"


class RtmPoseKeypoints(Section):
    """A network of the RTMPose family from a local ONNX file; needs the package onnxruntime."""

    kind: Literal["rtmpose"] = "rtmpose"
    weights: Path


Keypoints = Annotated[BlazePoseKeypoints | RtmPoseKeypoints, Field(discriminator="kind")]


class BodyFitSurface(Section):
    """IUV of the fitted embedded body."""

    kind: Literal["body_fit"] = "body_fit"


class DensePoseSurface(Section):
    """IUV from a DensePose network in TorchScript, from a local file. Its charts are not those that `tiny` was trained on."""

    kind: Literal["densepose_torchscript"] = "densepose_torchscript"
    weights: Path


Surface = Annotated[BodyFitSurface | DensePoseSurface, Field(discriminator="kind")]


class SmoothingConfig(Section):
    """Temporal smoothing of landmarks and keypoints. Times and frequencies suit every frame rate."""

    kind: Literal["none", "savgol", "one_euro"] = Field(default="none", description="savgol looks both ways and does not lag; one_euro is causal.")
    min_confidence: float = Field(default=0.2, ge=0, le=1, description="Points below it are interpolated first.")
    window_s: float = Field(default=0.2, gt=0, le=10, description="savgol: length of the window.")
    polyorder: int = Field(default=2, ge=0, le=5, description="savgol: degree of the polynomial.")
    min_cutoff_hz: float = Field(default=3.0, gt=0, le=1000, description="one_euro: cutoff at rest.")
    beta: float = Field(default=20.0, ge=0, le=10_000, description="one_euro: Hz of cutoff gained per body size a second.")

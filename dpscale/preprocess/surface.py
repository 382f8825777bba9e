"""A moving body -> everything that drives the diffusion model: IUV, keypoints and human flow of each frame.

The IUV is that of the embedded body's own charts ("body fit"), not detectron2's DensePose."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dpscale.body.parametric import BodyModel
from dpscale.body.surface_maps import iuv_map
from dpscale.data.types import BodyMotion, BodyShape, Pose
from dpscale.preprocess.human_flow import flow_to
from dpscale.preprocess.mesh import MeshFrame, mesh_frames, mesh_keypoints


def pose_of_body(
    body: BodyModel,
    shape: BodyShape,
    motion: BodyMotion,
    size: int,
    keypoints: Float[np.ndarray, "N 18 3"] | None = None,
    surface: Float[np.ndarray, "V 3"] | None = None,
) -> Pose:
    """IUV and flow of the mesh in `size` x `size` px, two meshes at a time in memory.

    `keypoints` (px) are kept where the picture was seen; without them the mesh's own are taken. `surface` is the rest surface to
    draw; none: the bare body."""
    shaped, num_frames = body.shaped(shape), len(motion.root)
    iuv = np.zeros((num_frames, size, size, 3), np.uint8)
    flow, valid = np.zeros((num_frames, size, size, 2), np.float16), np.zeros((num_frames, size, size), bool)
    before: MeshFrame | None = None
    for n, frame in enumerate(mesh_frames(body, shaped, motion, size, surface)):
        iuv[n] = iuv_map(body, frame.raster)
        if before is not None:
            flow[n - 1], valid[n - 1] = flow_to(body, before, frame, motion)
        before = frame
    points = mesh_keypoints(body, shaped, motion, size) if keypoints is None else keypoints.astype(np.float32)
    return Pose(points, iuv, flow, valid, shape, motion)

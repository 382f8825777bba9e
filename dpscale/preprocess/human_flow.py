"""3D-aware human flow between the frames of a clip (METHOD 5; DiffPerformer 4.2.2, Eq. 7).

The paper gives each body pixel its nearest visible mesh point and that point's offset. Here a pixel has its own surface point, by
the barycentric coordinates of the face that it sees: the correspondence is exact, up to the mesh. Unlike the paper, a pixel
counts only if its point is visible in both frames."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from dpscale.body.parametric import BodyModel
from dpscale.body.surface_maps import mesh_flow
from dpscale.data.types import BodyMotion
from dpscale.preprocess.mesh import MeshFrame


def flow_to(body: BodyModel, here: MeshFrame, there: MeshFrame, camera: BodyMotion) -> tuple[Float[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]]:
    """Flow from one frame to the next, (dx / W, dy / H) in float16 as shards keep it, and where it holds."""
    flow = mesh_flow(body.faces, here.raster, there.vertices, there.raster, camera.focal_px, camera.center_px)
    return flow.offset.astype(np.float16), flow.valid

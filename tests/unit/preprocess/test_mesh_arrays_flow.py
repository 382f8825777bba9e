"""Flow of users' meshes against the renderer's exact truth, and against geometry."""

from dataclasses import replace

import numpy as np
import pytest

from dpscale.body.camera import project
from dpscale.body.rendered import render_performer
from dpscale.data.types import InputError
from dpscale.preprocess.crop import Crop
from dpscale.preprocess.mesh_arrays import read_mesh_arrays
from dpscale.preprocess.mesh_arrays_flow import mesh_clip_flow, mesh_coverage, mesh_flow_of, overlap_with_person, rasterised
from tests.unit.preprocess.meshes import box_arrays, rendered_arrays, rendered_vertices, saved

SEED, SIZE, NUM_FRAMES = 1_000_002, 256, 4
CROP = Crop(150, -20, 400, SIZE)
"""Reaches beyond the picture of 640 x 360 px that the rendered clip is taken to be a crop of."""


@pytest.fixture(scope="module", params=["dance_a", "walk"])
def clip(request):
    return render_performer(SEED, request.param, NUM_FRAMES, 15.0, SIZE, 1)


@pytest.fixture
def sequence(clip, tmp_path):
    return read_mesh_arrays(saved(tmp_path / "meshes.npz", rendered_arrays(clip, SEED, CROP, (360, 640))))


def _error_px(flow, truth, both):
    return np.linalg.norm((flow - truth)[both], axis=1) * SIZE


def test_equals_the_renderers_flow(clip, sequence):
    for n in range(NUM_FRAMES - 1):
        flow = mesh_flow_of(sequence, n, CROP, SIZE)
        both = flow.valid & clip.pose.flow_valid[n]
        error_px = _error_px(flow.offset, clip.pose.flow[n], both)
        assert np.median(error_px) < 0.001  # float32 vertices and flow
        assert np.median(np.linalg.norm(clip.pose.flow[n][both], axis=1)) * SIZE > 1  # the body moves
        assert (flow.valid ^ clip.pose.flow_valid[n]).sum() < 0.002 * flow.valid.sum()  # rounding at rims
        assert not flow.offset[~flow.valid].any()


def test_agrees_with_the_papers_visible_vertices(sequence):
    """Eq. 7 for single vertices: one that passes the depth test moves as the pixel that shows it."""
    here, there = (rasterised(sequence, n, CROP, SIZE) for n in (0, 1))
    flow = mesh_flow_of(sequence, 0, CROP, SIZE)
    (start, depth), (end, _) = (project(seen.vertices, seen.focal_px, seen.center_px) for seen in (here, there))
    x, y = np.floor(start).astype(int).T
    shown = (np.abs(here.raster.depth[y, x] - depth) < 0.005) & flow.valid[y, x]
    error_px = np.linalg.norm((end - start)[shown] - flow.offset[y, x][shown] * SIZE, axis=1)
    assert shown.sum() > 2000
    assert np.median(error_px) < 0.1
    assert np.quantile(error_px, 0.95) < 0.5


def test_the_last_frame_leads_nowhere(sequence):
    flow = mesh_flow_of(sequence, NUM_FRAMES - 1, CROP, SIZE)
    assert not flow.valid.any()
    assert not flow.offset.any()


def test_a_stretch_of_the_clip_equals_its_frames(sequence):
    whole, part = mesh_clip_flow(sequence, 0, NUM_FRAMES, CROP, SIZE), mesh_clip_flow(sequence, 1, 2, CROP, SIZE)
    np.testing.assert_array_equal(part.flow, whole.flow[1:3])
    np.testing.assert_array_equal(part.valid, whole.valid[1:3])
    for n in range(NUM_FRAMES):
        one = mesh_flow_of(sequence, n, CROP, SIZE)
        np.testing.assert_array_equal(whole.flow[n], one.offset.astype(np.float16))
        np.testing.assert_array_equal(whole.valid[n], one.valid)


def test_covers_the_person_in_the_picture(clip, sequence):
    for n in range(NUM_FRAMES):
        mesh, mask = mesh_coverage(sequence, n, CROP, SIZE), clip.mask[n] > 127
        assert (mesh & mask).sum() > 0.998 * (mesh | mask).sum()
    assert overlap_with_person(sequence, 1, CROP, clip.mask[1:]) > 0.998


def test_a_finer_drawing_of_the_same_crop_is_the_same_body(sequence):
    coarse, fine = mesh_coverage(sequence, 0, CROP, SIZE // 2), mesh_coverage(sequence, 0, CROP, SIZE)
    assert np.abs(coarse.repeat(2, 0).repeat(2, 1) ^ fine).mean() < 0.02


def test_the_other_winding_gives_the_same(clip, sequence, tmp_path):
    arrays = rendered_arrays(clip, SEED, CROP, (360, 640))
    turned = read_mesh_arrays(saved(tmp_path / "turned.npz", arrays | {"faces": arrays["faces"][:, ::-1]}))
    np.testing.assert_array_equal(turned.faces, sequence.faces)
    np.testing.assert_array_equal(mesh_flow_of(turned, 0, CROP, SIZE).offset, mesh_flow_of(sequence, 0, CROP, SIZE).offset)


def test_weak_perspective_agrees_with_full_for_a_far_body(clip, tmp_path):
    vertices, crop = rendered_vertices(clip, SEED), Crop(0, 0, SIZE, SIZE)
    depth, focal, boxes = 40.0, 40 * 110.0, np.linspace([120, 130, 180], [140, 120, 200], NUM_FRAMES)
    cameras = np.stack([2 * focal / (depth * boxes[:, 2]), np.full(NUM_FRAMES, 0.05), np.linspace(-0.1, 0.1, NUM_FRAMES)], 1)
    root = np.concatenate([cameras[:, 1:] + (boxes[:, :2] - SIZE / 2) * depth / focal, np.full((NUM_FRAMES, 1), depth)], 1)
    common = rendered_arrays(clip, SEED, crop, (SIZE, SIZE)) | {"vertices": vertices}
    for name in ("center_px", "root", "focal_px"):
        del common[name]
    full = read_mesh_arrays(saved(tmp_path / "full.npz", common | {"root": root, "focal_px": np.array(focal)}))
    weak = read_mesh_arrays(saved(tmp_path / "weak.npz", common | {"cameras": cameras, "boxes": boxes}))
    assert weak.focal_px[0] != full.focal_px[0]
    a, b = mesh_flow_of(full, 1, crop, SIZE), mesh_flow_of(weak, 1, crop, SIZE)
    both = a.valid & b.valid
    assert both.sum() > 0.97 * (a.valid | b.valid).sum()
    error_px, moved_px = _error_px(a.offset, b.offset, both), np.linalg.norm(a.offset[both], axis=1) * SIZE
    assert np.median(error_px) < 0.1
    assert np.median(moved_px) > 2


def test_each_frame_has_its_own_camera(tmp_path):
    """A cube that stands still; the camera zooms and pans: the flow of its near side is known for every pixel."""
    focal, center = np.array([600.0, 660.0]), np.array([[320.0, 240], [330, 235]])
    arrays = box_arrays(2) | {"focal_px": focal, "center_px": center}
    sequence, crop = read_mesh_arrays(saved(tmp_path / "box.npz", arrays)), Crop(240, 160, 160, 128)
    flow = mesh_flow_of(sequence, 0, crop, 128)
    here = np.stack(np.meshgrid(np.arange(128) + 0.5, np.arange(128) + 0.5), -1)
    in_picture = here / crop.scale + [crop.left, crop.top]
    exact = (in_picture - center[0]) * (focal[1] / focal[0]) + center[1] - in_picture
    assert flow.valid.sum() > 5000
    np.testing.assert_allclose(flow.offset[flow.valid], exact[flow.valid] * crop.scale / 128, atol=1e-6)


def test_a_side_that_turns_away_is_not_valid(tmp_path):
    """A cube shows its front, then its left side: no point of the front is seen twice."""
    turn = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
    arrays = box_arrays(2)
    arrays["vertices"][1] = arrays["vertices"][0] @ turn.T
    sequence, crop = read_mesh_arrays(saved(tmp_path / "box.npz", arrays)), Crop(240, 160, 160, 128)
    assert mesh_coverage(sequence, 0, crop, 128).sum() > 5000
    assert not mesh_flow_of(sequence, 0, crop, 128).valid.any()


def test_the_reference_performers_shape_moves_the_flow(clip, tmp_path):
    """(pose_n, shape_ref, camera_n): the flow is that of the transferred body, not of the driver's."""
    arrays = rendered_arrays(clip, SEED, CROP, (360, 640))
    shaped = read_mesh_arrays(saved(tmp_path / "both.npz", arrays | {"vertices_shaped": arrays["vertices"] * np.float32(0.9)}))
    alone = read_mesh_arrays(saved(tmp_path / "alone.npz", arrays | {"vertices": arrays["vertices"] * np.float32(0.9)}))
    found, expected = mesh_flow_of(shaped, 0, CROP, SIZE), mesh_flow_of(alone, 0, CROP, SIZE)
    np.testing.assert_array_equal(found.offset, expected.offset)
    assert (found.valid != clip.pose.flow_valid[0]).sum() > 100


def test_meshes_beside_the_person_are_refused(clip, sequence):
    with pytest.raises(InputError, match=r"meshes\.npz: the meshes do not lie on the person.*y points down"):
        overlap_with_person(sequence, 0, replace(CROP, left=CROP.left + 100), clip.mask)
    assert overlap_with_person(sequence, 0, CROP, np.zeros_like(clip.mask)) == 1  # nobody was found: nothing to compare

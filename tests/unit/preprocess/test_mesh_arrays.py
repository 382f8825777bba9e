"""Vertex arrays of users: cameras, winding, shape, and what a file that cannot be used says."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from dpscale.body.camera import project
from dpscale.data.types import InputError
from dpscale.preprocess import mesh_arrays as module
from dpscale.preprocess.mesh_arrays import check_matches_video, frame_ranges, read_mesh_arrays
from tests.unit.preprocess.meshes import BOX_FACES, box_arrays, box_vertices, saved


def _read(tmp_path, **changed):
    """The box with arrays replaced, or left out where None."""
    arrays = {name: np.asarray(array) for name, array in (box_arrays() | changed).items() if array is not None}
    return read_mesh_arrays(saved(tmp_path / "meshes.npz", arrays))


def test_frames_are_vertices_and_root_in_front_of_the_frames_camera(tmp_path):
    focal, center = np.linspace(500, 900, 12), np.linspace([300, 200], [340, 280], 12)
    sequence = _read(tmp_path, focal_px=focal, center_px=center)
    assert len(sequence) == 12
    for n in (0, 11):
        mesh = sequence.frame(n)
        np.testing.assert_allclose(mesh.vertices, box_vertices() + np.array([0, 0, 4]), atol=1e-6)
        assert (mesh.focal_px, mesh.center_px) == (focal[n], tuple(center[n]))


def test_without_a_principal_point_it_is_the_middle_of_the_picture(tmp_path):
    assert _read(tmp_path).frame(3).center_px == (320, 240)


@pytest.mark.parametrize("boxed", [True, False])
def test_weak_perspective_puts_the_meshs_own_origin_where_it_says(tmp_path, boxed):
    boxes = np.linspace([200, 150, 200], [400, 300, 260], 12) if boxed else None
    cameras = np.linspace([0.5, -0.1, 0.2], [0.7, 0.3, 0.1], 12)
    sequence = _read(tmp_path, cameras=cameras, boxes=boxes, root=None, focal_px=None)
    for n, (s, tx, ty) in enumerate(cameras):
        x, y, side = boxes[n] if boxed else (320, 240, 640)
        mesh = sequence.frame(n)
        assert mesh.focal_px == pytest.approx(5000 / 256 * 640)
        around = np.array([[0.0, 0, 0], [0.3, -0.4, 0]])  # in the plane of the origin weak and full perspective agree
        points, _ = project(around + sequence.root[n], mesh.focal_px, mesh.center_px)
        np.testing.assert_allclose(points, side / 2 * s * (around[:, :2] + [tx, ty]) + [x, y], atol=1e-6)


def test_faces_are_turned_outward(tmp_path):
    outward = _read(tmp_path).faces
    np.testing.assert_array_equal(outward, BOX_FACES)
    turned = _read(tmp_path, faces=BOX_FACES[:, [0, 2, 1]]).faces
    normal = np.cross(*np.moveaxis(box_vertices()[turned][:, 1:] - box_vertices()[turned][:, :1], 1, 0))
    assert (np.einsum("fi,fi->f", normal, box_vertices()[turned].mean(1)) > 0).all()


def test_the_reference_performers_shape_is_taken(tmp_path):
    shaped = box_arrays()["vertices"] * np.float32(1.25)
    sequence = _read(tmp_path, vertices_shaped=shaped)
    assert sequence.transferred
    np.testing.assert_allclose(sequence.frame(5).vertices, shaped[5] + [0, 0, 4], atol=1e-6)


def test_a_shape_that_changes_is_told_unless_it_was_transferred(tmp_path):
    drift = np.linspace(0, 0.8, 12)[:, None] * np.ones(10)
    assert "betas change by up to 0.80 within the clip" in _read(tmp_path, betas=drift).note
    assert _read(tmp_path, betas=drift, vertices_shaped=box_arrays()["vertices"]).note == ""
    assert _read(tmp_path, betas=np.ones(10)).note == ""
    assert _read(tmp_path, betas=np.tile(np.ones(10), (12, 1))).note == ""
    assert _read(tmp_path).note == ""


def test_a_compressed_file_reads_the_same(tmp_path):
    np.savez_compressed(tmp_path / "small.npz", **box_arrays())
    np.testing.assert_array_equal(read_mesh_arrays(tmp_path / "small.npz").frame(7).vertices, _read(tmp_path).frame(7).vertices)


def _with(array, where, value):
    changed = np.array(array, float)
    changed[where] = value
    return changed


BOX = box_arrays()
CAMERAS = {"root": None, "focal_px": None, "cameras": np.tile([0.6, 0.0, 0.0], (12, 1))}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"faces": None}, "has no faces: add them"),
        ({"vertices": None, "image_size": None}, "has no vertices, image_size"),
        ({"rot": np.zeros((12, 3))}, "unknown arrays rot: leave them out or correct the name; known are vertices"),
        ({"focal_px": None}, r"no camera: add focal_px, or cameras \[N, 3\]"),
        (CAMERAS | {"root": BOX["root"]}, "has cameras and root"),
        ({"boxes": np.ones((12, 3))}, "boxes without cameras"),
        ({"vertices": np.zeros((12, 8), np.float32)}, r"vertices is float32 \[12, 8\]: give floats \[N, V, 3\]"),
        ({"vertices": np.zeros((0, 8, 3))}, r"vertices is float64 \[0, 8, 3\]"),
        ({"vertices": np.zeros((12, 8, 3), int)}, "vertices is int64.*give floats"),
        ({"faces": BOX_FACES.astype(float)}, "faces is float64.*give whole numbers"),
        ({"faces": np.zeros((6, 4), int)}, r"faces is int64 \[6, 4\]: give whole numbers \[F, 3\]"),
        ({"root": BOX["root"][:9]}, r"root is float64 \[9, 3\]: give numbers \[N, 3\] with N = 12"),
        ({"focal_px": np.ones(5)}, r"focal_px is float64 \[5\]: give numbers \[\] or \[N\] with N = 12"),
        ({"betas": np.zeros((5, 10))}, r"betas is float64 \[5, 10\]: give numbers \[K\] or \[N, K\]"),
        ({"vertices_shaped": np.zeros((12, 9, 3))}, r"vertices_shaped is .*with N = 12, V = 8"),
        ({"focal_px": np.array(["600"])}, "focal_px is <U3"),
        ({"faces": BOX_FACES + 1}, r"faces name vertices 1\.\.8, there are 0\.\.7.*counted from 0"),
        ({"faces": BOX_FACES - 1}, r"faces name vertices -1\.\.6"),
        ({"vertices": _with(BOX["vertices"], ([3, 7, 8, 9], 2, 1), np.nan)}, r"vertices of frames 3, 7-9 hold NaN.*fill these frames"),
        ({"root": _with(BOX["root"], [0, 11], np.inf)}, "root holds NaN or infinity in frames 0, 11"),
        ({"center_px": np.array([np.nan, 1])}, "center_px holds NaN or infinity: "),
        ({"focal_px": np.array(-600.0)}, "focal_px has a value that is not positive"),
        ({"image_size": np.array([0, 640])}, "image_size has a value that is not positive"),
        (CAMERAS | {"cameras": np.tile([0.0, 0.6, 0.1], (12, 1))}, "cameras has a scale s that is not positive"),
        (CAMERAS | {"boxes": np.tile([10.0, 10, 0], (12, 1))}, "boxes has a side that is not positive"),
        ({"root": None}, "vertices of frames 0-11 lie behind the camera.*z forward"),
        ({"root": _with(BOX["root"], (4, 2), -4)}, "vertices of frames 4 lie behind the camera"),
        ({"vertices": BOX["vertices"] * 1000}, r"frames 0-11 are not 0\.3 to 4 m long: give metres"),
        ({"vertices": _with(BOX["vertices"], 6, 0)}, r"frames 6 are not 0\.3 to 4 m long"),
        ({"focal_px": np.array(2.0)}, "are less than 4 px long in the picture: check focal_px"),
        ({"vertices_shaped": _with(BOX["vertices"], 2, np.nan)}, "vertices_shaped of frames 2 hold NaN"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, changed, message):
    with pytest.raises(InputError, match=r"meshes\.npz: .*" + message):
        _read(tmp_path, **changed)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "wham_output.pkl").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(InputError, match=r"wham_output\.pkl: is not an \.npz file"):
        read_mesh_arrays(tmp_path / "wham_output.pkl")
    with pytest.raises(InputError, match="no such file"):
        read_mesh_arrays(tmp_path / "none.npz")


def test_the_meshes_must_be_the_videos(tmp_path):
    sequence, video = _read(tmp_path), Path("clip.mp4")
    check_matches_video(sequence, video, 12, 480, 640, 1800)
    check_matches_video(sequence, video, 10, 480, 640, 10)
    with pytest.raises(InputError, match=r"meshes\.npz: has 12 frames, the clip of clip\.mp4 14: give one mesh for every frame"):
        check_matches_video(sequence, video, 14, 480, 640, 1800)
    with pytest.raises(InputError, match=r"has 12 frames, the clip of clip\.mp4 10"):
        check_matches_video(sequence, video, 10, 480, 640, 1800)
    with pytest.raises(InputError, match=r"image_size is 640x480 px, clip\.mp4 is 1280x720.*scale"):
        check_matches_video(sequence, video, 12, 720, 1280, 1800)


def test_frames_are_named_in_ranges():
    assert frame_ranges([3, 7, 8, 9]) == "3, 7-9"
    assert frame_ranges([0]) == "0"


def test_the_recipes_save_arrays_that_are_known():
    text = (Path(__file__).parents[3] / "docs/mesh_arrays.md").read_text()
    calls = [node for block in re.findall(r"```python\n(.*?)```", text, re.S) for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    saves = [{keyword.arg for keyword in call.keywords} for call in calls if getattr(call.func, "attr", "") == "savez"]
    assert len(saves) == 4
    for names in saves:
        assert names >= {"vertices", "faces", "image_size", "focal_px"}
        assert names <= set(module._FORMS)

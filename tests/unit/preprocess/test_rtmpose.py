"""RTMPose: the mathematics around the network with exact answers, and a tiny network of the same form where onnxruntime is installed."""

import sys

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from dpscale.data.types import OPENPOSE18, InputError
from dpscale.preprocess.rtmpose import RTMPose, Window, decode_simcc, follow_with_rtmpose, openpose18_from_coco

COCO = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist",
    "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip


@pytest.mark.parametrize(
    ("box", "scale"),
    [
        ([100, 50, 200, 306], 1.25),  # as high as the input: its height decides
        ([0, 0, 192, 10], 1.25),  # as wide as the input
        ([10, 10, 10, 10], 1.25 / 192),  # nothing is one px
    ],
)
def test_a_window_pads_the_box_to_the_aspect_ratio_of_the_input(box, scale):
    window = Window.around(np.array(box, float), 192, 256)
    assert window.scale == pytest.approx(scale)
    np.testing.assert_allclose(window.center, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    corners = window.to_picture(np.array([[0, 0], [192, 256.0]]))
    np.testing.assert_allclose(corners[1] - corners[0], scale * np.array([192, 256]))
    np.testing.assert_allclose(corners.mean(0), window.center)


@pytest.mark.parametrize(("center", "scale"), [((52.5, 40.0), 1.0), ((30.2, 61.7), 0.37), ((2.0, 77.0), 1.4), ((300.0, 40.0), 1.0)])
def test_a_cut_equals_scipy_pixel_by_pixel(center, scale):
    picture = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    window = Window(np.array(center), scale, 36, 48)
    rows, columns = np.mgrid[:48, :36]
    places = window.to_picture(np.stack([columns, rows], -1).astype(float)) - 0.5
    slow = [map_coordinates(picture[..., c].astype(float), [places[..., 1], places[..., 0]], order=1, mode="grid-constant") for c in range(3)]
    np.testing.assert_allclose(window.cut(picture), np.stack(slow, -1), atol=1e-9)


@pytest.mark.parametrize("scale", [0.8, 2.9, 7.3])
def test_a_cut_is_where_the_window_says_at_every_scale(scale):
    rows, columns = np.mgrid[:900, :700] + 0.5
    ramps = np.stack([columns / 4, rows / 4, 0 * rows], -1).astype(np.uint8)  # x and y of every pixel, in steps of 4
    window = Window(np.array([320.0, 450.0]), scale, 36, 48)
    inside = window.cut(ramps)[4:-4, 4:-4, :2]
    y, x = np.mgrid[4:44, 4:32]
    np.testing.assert_allclose(4 * inside + 2, window.to_picture(np.stack([x, y], -1).astype(float)), atol=2.1)


def test_simcc_has_two_bins_a_pixel_and_the_lower_maximum_is_the_confidence():
    x, y = np.zeros((3, 384), np.float32), np.zeros((3, 512), np.float32)
    x[0, 191], y[0, 3] = 0.9, 0.7
    x[1, 0], y[1, 511] = 1.1, 1.2
    x[2], y[2] = -0.5, 0.2
    np.testing.assert_allclose(decode_simcc(x, y), [[95.5, 1.5, 0.7], [0, 255.5, 1.0], [0, 0, 0]], atol=1e-7)


def test_what_simcc_marks_comes_back_to_its_place_in_the_picture():
    window = Window.around(np.array([210.0, 100, 330, 420]), 192, 256)
    truth = np.array([[250.0, 130.0], [300.5, 410.25]])
    bins = np.rint(2 * ((truth - window.center) / window.scale + [96, 128])).astype(int)
    x, y = np.eye(384, dtype=np.float32)[bins[:, 0]], np.eye(512, dtype=np.float32)[bins[:, 1]]
    np.testing.assert_allclose(window.to_picture(decode_simcc(x, y)[:, :2]), truth, atol=window.scale / 4 + 1e-9)


def test_openpose_order_and_the_neck():
    keypoints = np.stack([np.arange(17.0), 2 * np.arange(17.0), np.linspace(0.2, 1, 17)], 1)
    points = openpose18_from_coco(keypoints[None])[0]
    for name, point in zip(OPENPOSE18, points, strict=True):
        expected = keypoints[COCO.index(name)] if name != "neck" else [5.5, 11, keypoints[5, 2]]
        np.testing.assert_allclose(point, expected)


def test_without_onnxruntime_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"net.onnx: RTMPose needs the package onnxruntime: `pip install onnxruntime`, or use BlazePose"):
        RTMPose(tmp_path / "net.onnx")


def _tiny_network(path, num_keypoints=17, outputs=("simcc_x", "simcc_y"), channels=3):
    """An ONNX network with RTMPose's inputs and outputs: every keypoint is the brightest pixel (mean of the normalised channels)."""
    onnx = pytest.importorskip("onnx", reason="needs the package onnx to write a network: pip install onnx onnxruntime")
    pytest.importorskip("onnxruntime", reason="needs the optional package onnxruntime: pip install onnxruntime")
    make, numbers = onnx.helper, onnx.TensorProto
    nodes, constants = [make.make_node("ReduceMean", ["input"], ["grey"], axes=[1], keepdims=0)], []
    for axis, size, name in ((1, 192, outputs[0]), (2, 256, outputs[1])):
        constants += [
            make.make_tensor(f"{name}_bins", numbers.INT64, [2 * size], np.repeat(np.arange(size), 2)),
            make.make_tensor(f"{name}_shape", numbers.INT64, [3], [1, num_keypoints, 2 * size]),
        ]
        nodes += [
            make.make_node("ReduceMax", ["grey"], [f"{name}_line"], axes=[axis], keepdims=0),
            make.make_node("Gather", [f"{name}_line", f"{name}_bins"], [f"{name}_wide"], axis=1),
            make.make_node("Expand", [f"{name}_wide", f"{name}_shape"], [name]),
        ]
    image = make.make_tensor_value_info("input", numbers.FLOAT, ["batch", channels, 256, 192])
    found = [make.make_tensor_value_info(name, numbers.FLOAT, [1, num_keypoints, 2 * n]) for name, n in zip(outputs, (192, 256), strict=True)]
    model = make.make_model(make.make_graph(nodes, "tiny", [image], found, constants), opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path


def test_a_network_finds_a_light_where_it_is(tmp_path):
    network = RTMPose(_tiny_network(tmp_path / "tiny.onnx"))
    picture = np.zeros((400, 300, 3), np.uint8)
    picture[220:224, 140:144] = 255  # its centre is 142, 222
    window_scale = 1.25 * 256 / 256
    found = network.read(picture, np.array([80.0, 100, 200, 356]))
    np.testing.assert_allclose(found[:, :2], [[142, 222]] * 18, atol=2 + window_scale)
    np.testing.assert_allclose(found[:, 2], 1.0)
    np.testing.assert_allclose(network.read(picture)[:, :2], [[142, 222]] * 18, atol=2 + 1.25 * 400 / 256)
    assert network.name == "tiny"


def test_a_network_sees_rgb_normalised_as_in_training(tmp_path):
    colour = np.array([140, 120, 130])
    grey = np.mean((colour - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375])
    picture = np.tile(colour.astype(np.uint8), (400, 300, 1))
    found = RTMPose(_tiny_network(tmp_path / "tiny.onnx")).read(picture, np.array([100.0, 100, 160, 200]))
    np.testing.assert_allclose(found[:, 2], grey, rtol=1e-5)


def test_a_box_a_frame_is_followed(tmp_path):
    network = RTMPose(_tiny_network(tmp_path / "body26.onnx", num_keypoints=26))
    frames = np.zeros((3, 300, 300, 3), np.uint8)
    for n in range(3):
        frames[n, 150:154, 60 + 80 * n : 64 + 80 * n] = 255
    boxes = np.array([[20.0 + 80 * n, 90, 100 + 80 * n, 210] for n in range(3)])
    found = follow_with_rtmpose(frames, network, boxes)
    assert found.shape == (3, 18, 3)
    np.testing.assert_allclose(found[:, 5, :2], [[62, 152], [142, 152], [222, 152]], atol=3)


def test_other_files_are_refused_with_the_remedy(tmp_path):
    network = _tiny_network(tmp_path / "heat.onnx", outputs=("heatmap", "offset"))
    with pytest.raises(InputError, match=r"heat.onnx: has 1 inputs and the outputs heatmap, offset: give an RTMPose network with SimCC outputs"):
        RTMPose(network)
    with pytest.raises(InputError, match=r"face.onnx: gives 106 keypoints, known are networks for 17, 26, 133"):
        RTMPose(_tiny_network(tmp_path / "face.onnx", num_keypoints=106)).read(np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(InputError, match=r"grey.onnx: takes input of shape .*1 x 3 x height x width is needed"):
        RTMPose(_tiny_network(tmp_path / "grey.onnx", channels=1))
    with pytest.raises(InputError, match=r"gone.onnx: no such file: give an RTMPose network"):
        RTMPose(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(InputError, match=r"text.onnx: not a network that onnxruntime can load"):
        RTMPose(tmp_path / "text.onnx")

"""IUV files in every accepted form give the same frames; everything else is refused with a remedy."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from dpscale.data.types import InputError
from dpscale.preprocess.densepose_files import probe_iuv, read_iuv


def some_iuv(num_frames: int = 12, height: int = 20, width: int = 30) -> np.ndarray:
    """A square of changing part that wanders, with random u, v."""
    rng = np.random.default_rng(0)
    iuv = np.zeros((num_frames, height, width, 3), np.uint8)
    for n, frame in enumerate(iuv):
        frame[4:16, n : n + 12, 0] = n % 24 + 1
        frame[4:16, n : n + 12, 1:] = rng.integers(0, 256, (12, 12, 2))
    return iuv


IUV = some_iuv()


def pngs(folder, iuv=IUV, reverse=False):
    folder.mkdir()
    for n, frame in enumerate(iuv):
        Image.fromarray(np.ascontiguousarray(frame[..., ::-1]) if reverse else frame).save(folder / f"frame_{n}.png")
    return folder


def crops(folder):
    folder.mkdir()
    for n, frame in enumerate(IUV):
        crop = frame[4:16, n : n + 12]
        uv = np.moveaxis(crop[..., 1:], -1, 0) / np.float32(255)
        np.savez(folder / f"{n}.npz", labels=crop[..., 0].astype(int), uv=uv, box=np.array([n + 0.4, 4.7, n + 12.4, 16.7]), size=[20, 30])
    return folder


def npz(path, array, save=np.savez_compressed):
    save(path, iuv=array)
    return path


FORMS = {
    "png": lambda folder: pngs(folder / "a"),
    "png as OpenCV writes it": lambda folder: pngs(folder / "a", reverse=True),
    "npz": lambda folder: npz(folder / "a.npz", IUV),
    "npz, channels first, plain": lambda folder: npz(folder / "a.npz", np.moveaxis(IUV, -1, 1).copy(), np.savez),
    "npz, float32": lambda folder: npz(folder / "a.npz", (IUV / [1, 255, 255]).astype(np.float32)),
    "crops": lambda folder: crops(folder / "a"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_frames(tmp_path, form):
    path = FORMS[form](tmp_path)
    info = probe_iuv(path)
    assert (info.num_frames, info.height, info.width) == (12, 20, 30)
    np.testing.assert_array_equal(list(read_iuv(path, 100)), IUV)
    np.testing.assert_array_equal(list(read_iuv(path, 3)), IUV[:3])


def test_u_and_v_of_the_background_are_dropped(tmp_path):
    noisy = IUV.copy()
    noisy[..., 1:][IUV[..., 0] == 0] = 99
    np.testing.assert_array_equal(list(read_iuv(npz(tmp_path / "a.npz", noisy), 100)), IUV)


def test_frames_of_an_archive_are_read_one_by_one(tmp_path):
    path = npz(tmp_path / "a.npz", IUV, np.savez)
    frames = read_iuv(path, 100)
    first = next(frames)
    data = bytearray(path.read_bytes())
    data[-1500:-1000] = bytes(500)  # the end is not read yet
    path.write_bytes(data)
    np.testing.assert_array_equal(first, IUV[0])
    with pytest.raises(InputError, match=r"a.npz: array iuv is damaged .*: copy or save it again"):
        list(frames)


def test_a_crop_beyond_the_picture_is_cut_and_an_empty_one_is_background(tmp_path):
    labels, uv = np.full((6, 6), 3), np.ones((2, 6, 6))
    np.savez(tmp_path / "1.npz", labels=labels, uv=uv, box=[-2, 7, 4, 13], size=[10, 8])
    np.savez(tmp_path / "2.npz", labels=np.zeros((0, 0)), uv=np.zeros((2, 0, 0)), box=np.zeros(4), size=[10, 8])
    np.savez(tmp_path / "3.npz", labels=labels, uv=uv, box=[20, 30, 26, 36], size=[10, 8])
    first, second, third = read_iuv(tmp_path, 10)
    expected = np.zeros((10, 8, 3), np.uint8)
    expected[7:, :4] = [3, 255, 255]
    np.testing.assert_array_equal(first, expected)
    assert not second.any()
    assert not third.any()


def _empty_folder(folder):
    (folder / "a").mkdir()
    return folder / "a"


def _mixed(folder):
    np.savez(pngs(folder / "a") / "x.npz", iuv=IUV)
    return folder / "a"


def _colours(folder):
    return pngs(folder / "a", np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8))


def _late_colours(folder):
    return npz(folder / "a.npz", np.concatenate([IUV, np.full_like(IUV[:1], 77)]))


def _grey(folder):
    (folder / "a").mkdir()
    Image.fromarray(IUV[0, ..., 0]).save(folder / "a" / "1.png")
    return folder / "a"


def _text(folder):
    (folder / "a").mkdir()
    (folder / "a" / "1.png").write_text("no picture")
    return folder / "a"


def _sizes(folder):
    Image.fromarray(IUV[0, :8]).save(pngs(folder / "a") / "frame_99.png")
    return folder / "a"


def _objects(folder):
    return npz(folder / "a.npz", np.array([[[[None] * 3]]]))


def _pickle(folder):
    (folder / "dump.pkl").write_bytes(b"\x80\x04.")
    return folder / "dump.pkl"


def _other_array(folder):
    np.savez(folder / "a.npz", parts=IUV)
    return folder / "a.npz"


def _crop_without_box(folder):
    (folder / "a").mkdir()
    np.savez(folder / "a" / "1.npz", labels=np.ones((2, 2)), uv=np.ones((2, 2, 2)), size=[4, 4])
    return folder / "a"


def _cut_off(folder):
    file = io.BytesIO()
    np.save(file, IUV)
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        archive.writestr("iuv.npy", file.getvalue()[:-50])
    return folder / "a.npz"


def _bomb(folder):
    """A picture that says that it is 40,000 px wide and high, in some 60 bytes."""
    (folder / "a").mkdir()
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b""))]
    chunks = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts]
    (folder / "a" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return folder / "a"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none", "none: no such file: check the path"),
        (_empty_folder, "holds 0 .png and 0 .npz files: give a folder of IUV .png files"),
        (_mixed, "holds 12 .png and 1 .npz files"),
        (_colours, r"neither the first nor the last channel stays in 0..24: give IUV"),
        (_late_colours, r"frame 12 names part 77, DensePose has 1..24: give IUV, not colours"),
        (_grey, r"1.png: has mode uint8 \(20, 30\): IUV is 8 bits with three channels"),
        (_text, r"1.png: not a picture that can be read .*: write it again"),
        (_bomb, r"1.png: not a picture that can be read .*decompression bomb"),
        (_sizes, r"frame 12 is \(8, 30\) px high and wide, the first is \(20, 30\): give frames of one size"),
        (_objects, "array iuv: holds Python objects, which run code when they are read: save plain arrays"),
        (lambda folder: npz(folder / "a.npz", np.asfortranarray(IUV)), "array iuv is in Fortran order: save numpy.ascontiguousarray"),
        (_pickle, "dump.pkl: is a pickle, which runs code when it is read: convert it"),
        (_other_array, r"holds \['parts.npy'\] and no array `iuv`"),
        (lambda folder: npz(folder / "a.npz", IUV[0]), r"array iuv is uint8 \(20, 30, 3\): give uint8 or floating point, \[N, H, W, 3\]"),
        (lambda folder: npz(folder / "a.npz", IUV.astype(float)), "frame 0: u and v reach from 0 to 255: floating-point u and v lie in 0..1"),
        (lambda folder: npz(folder / "a.npz", IUV / 255.0), "frame 0: part numbers are not whole numbers"),
        (lambda folder: npz(folder / "a.npz", IUV[:0]), "holds no frame"),
        (_crop_without_box, "1.npz: no crop of DensePose .*it needs the arrays labels, uv, box, size"),
        (_cut_off, "array iuv is cut off: copy or save it again"),
    ],
)
def test_anything_else_is_refused_with_a_remedy(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(InputError, match=message):
        assert probe_iuv(path).num_frames == len(list(read_iuv(path, 100)))

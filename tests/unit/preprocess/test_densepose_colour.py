"""Part-colour videos: exact parts after H.264, u and v that stand in, and no for everything else."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from dpscale.body.rendered import render_performer
from dpscale.data.types import InputError
from dpscale.preprocess.decode import read_frames
from dpscale.preprocess.densepose_colour import PALETTE, is_densepose_colour, part_map, read_densepose_colour
from tests.unit.preprocess.videos import pattern, write_video


@pytest.fixture(scope="module")
def parts():
    """Part maps of a dancer, [N, H, W], large enough for a codec."""
    return render_performer(1_000_002, "dance_a", 4, 15.0, 384, 1, with_flow=False).pose.iuv[..., 0]


@pytest.fixture(scope="module")
def decoded(parts, tmp_path_factory):
    path = tmp_path_factory.mktemp("colour") / "map.mp4"
    write_video(path, PALETTE[parts], codec="libx264", options={"crf": "18"})
    return path, np.stack(list(read_frames(path, 10)))


def test_the_palette_is_viridis_at_equal_steps():
    luma = PALETTE.astype(float) @ [0.299, 0.587, 0.114]
    assert PALETTE.shape == (25, 3)
    assert (np.diff(luma) > 3).all()
    np.testing.assert_array_equal(PALETTE[[0, 24]], [[68, 1, 84], [253, 231, 37]])


def test_clean_pictures_are_exact_where_parts_are_wide(parts):
    blocks = np.arange(25, dtype=np.uint8).reshape(5, 5).repeat(9, 0).repeat(11, 1)
    np.testing.assert_array_equal(part_map(PALETTE[blocks]), blocks)
    black = PALETTE[parts[0]] * (parts[0] > 0)[..., None]
    found = part_map(black)
    assert (found == parts[0])[parts[0] > 0].mean() > 0.97
    assert ((found > 0) == (parts[0] > 0)).mean() > 0.999


def test_parts_survive_h264(parts, decoded):
    found = np.stack([part_map(frame) for frame in decoded[1]])
    body = (parts > 0) | (found > 0)
    assert (found == parts)[body].mean() > 0.9
    assert ((parts > 0) & (found > 0)).sum() / body.sum() > 0.97
    nearest = np.square(decoded[1][:, :, :, None].astype(float) - PALETTE).sum(-1).argmin(-1)
    assert foreign(found, parts) < 0.2 * foreign(nearest, parts)


def foreign(found, parts) -> int:
    """Pixels of a part that is not there within 2 px: what mixed colours look like."""
    near = np.stack([binary_dilation(parts == part, np.ones((1, 5, 5))) for part in range(25)])
    return int((~np.take_along_axis(near, found[None].astype(int), 0)).sum())


def test_a_video_becomes_iuv(parts, decoded):
    iuv = np.stack(list(read_densepose_colour(decoded[0], 3)))
    assert iuv.shape == (3, 384, 384, 3)
    assert iuv[..., 0].max() <= 24
    assert not iuv[iuv[..., 0] == 0].any()
    torso = iuv[iuv[..., 0] == 2]
    assert np.ptp(torso[:, 2]) > 200


def test_a_map_is_known_and_other_pictures_are_not(decoded):
    assert is_densepose_colour(decoded[1])
    assert is_densepose_colour(np.concatenate([np.full_like(decoded[1][:1], [68, 1, 84]), decoded[1]]))  # nobody at first
    assert not is_densepose_colour(pattern(3, 64, 64))
    assert not is_densepose_colour(np.zeros((2, 64, 64, 3), np.uint8))
    assert not is_densepose_colour(np.full((2, 64, 64, 3), PALETTE[9]))  # one part is no map


def test_another_video_is_refused(tmp_path):
    noise = write_video(tmp_path / "noise.mp4", pattern(4, 64, 64))
    with pytest.raises(InputError, match=r"noise.mp4: is no DensePose part map in viridis colours: \d+% of what it shows .*Draw one with"):
        list(read_densepose_colour(noise, 10))
    dark = write_video(tmp_path / "dark.mp4", np.zeros((4, 64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="it shows nobody"):
        list(read_densepose_colour(dark, 10))


def test_a_real_driving_video(real_data):
    frames = list(read_densepose_colour(real_data / "ma_densepose_dancing2.mp4", 10))
    parts = np.stack(frames)[..., 0]
    assert len(frames) == 10
    assert set(np.unique(parts[0])) >= {0, 2, 3, 4, 9, 10, 15, 17, 16, 18, 21, 22, 23, 24}
    assert 0.1 < (parts > 0).mean() < 0.4
    rows = {part: np.nonzero(parts[0] == part)[0].mean() for part in (23, 2, 9)}
    assert rows[23] < rows[2] < rows[9]  # head over torso over thighs


@pytest.mark.parametrize("name", ["moore_kps_2.mp4", "single_person_demo.mp4"])
def test_other_real_videos_are_refused(real_data, name):
    assert not is_densepose_colour(np.stack(list(read_frames(real_data / name, 8))))

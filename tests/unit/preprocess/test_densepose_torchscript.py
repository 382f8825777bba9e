"""A TorchScript DensePose of a few lines, written by the test: a person of two parts whose maps are known."""

import numpy as np
import pytest
import torch

from dpscale.data.types import InputError
from dpscale.preprocess.densepose_torchscript import DensePoseNetwork


class TwoParts(torch.nn.Module):
    """Finds people where the picture's first pixel says: none, or two, the smaller one first. Upper half part 2, lower half part 7."""

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        count = 2 if int(picture[0, 0, 0]) > 0 else 0
        boxes = torch.tensor([[1.0, 1.0, 4.0, 4.0], [10.0, 20.0, 30.0, 60.0]])
        coarse, fine = torch.zeros(2, 2, 8, 8), torch.zeros(2, 25, 8, 8)
        coarse[:, 1, :, 2:] = 1.0
        fine[:, 2, :4], fine[:, 7, 4:] = 1.0, 1.0
        along = torch.linspace(0.0, 1.0, 8)
        u, v = torch.zeros(2, 25, 8, 8), along[:, None].repeat(2, 25, 1, 8)
        u[:, 2], u[:, 7] = 0.25, 1.5
        return boxes[:count], coarse[:count], fine[:count], u[:count], v[:count]


class WithScores(torch.nn.Module):
    """The larger person is not a sure one."""

    def __init__(self) -> None:
        super().__init__()
        self.people = TwoParts()

    def forward(self, picture: torch.Tensor):
        boxes, coarse, fine, u, v = self.people(picture)
        return torch.tensor([0.9, 0.2])[: len(boxes)], boxes, coarse, fine, u, v


class Wrong(torch.nn.Module):
    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return picture, picture


class Loud(torch.nn.Module):
    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return picture @ torch.zeros(7, 7)


@pytest.fixture
def save(tmp_path):
    def saved(module: torch.nn.Module):
        path = tmp_path / "densepose.pt"
        torch.jit.script(module).save(str(path))
        return path

    return saved


PICTURE = np.full((64, 48, 3), 200, np.uint8)


def test_the_largest_person_is_drawn_into_its_box(save):
    iuv = DensePoseNetwork(save(TwoParts()))(PICTURE)
    assert iuv.shape == (64, 48, 3)
    outside = np.ones((64, 48), bool)
    outside[20:60, 10:30] = False
    assert not iuv[outside].any()
    assert not iuv[20:60, 10:14].any()  # coarse segmentation: background
    assert (iuv[20:39, 16:30, 0] == 2).all()
    assert (iuv[41:60, 16:30, 0] == 7).all()
    assert (iuv[20:39, 16:30, 1] == 64).all()
    assert (iuv[41:60, 16:30, 1] == 255).all()  # clamped
    v = iuv[20:60, 20, 2].astype(int)
    assert v[0] == 0
    assert v[-1] == 255
    assert (np.diff(v) >= 0).all()


def test_nobody_is_background(save):
    assert not DensePoseNetwork(save(TwoParts()))(np.zeros((64, 48, 3), np.uint8)).any()


def test_people_that_are_not_sure_are_left_out(save):
    iuv = DensePoseNetwork(save(WithScores()))(PICTURE)
    rows, columns = np.nonzero(iuv[..., 0])
    assert rows.max() < 4
    assert columns.max() < 4


def test_a_box_beyond_the_picture_is_cut(save):
    iuv = DensePoseNetwork(save(TwoParts()))(PICTURE[:40, :25])
    assert (iuv[20:39, 16:25, 0] == 2).all()


def test_no_torchscript(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"model.pt: is no TorchScript file .*torch.jit"):
        DensePoseNetwork(path)
    with pytest.raises(InputError, match="no such file"):
        DensePoseNetwork(tmp_path / "nowhere.pt")


def test_another_answer_is_refused(save):
    with pytest.raises(InputError, match=r"densepose.pt: answers with \[3, 64, 48\], \[3, 64, 48\]: a tuple of boxes"):
        DensePoseNetwork(save(Wrong()))(PICTURE)


def test_a_network_that_fails_is_named(save):
    with pytest.raises(InputError, match=r"densepose.pt: cannot be called with one uint8 picture"):
        DensePoseNetwork(save(Loud()))(PICTURE)

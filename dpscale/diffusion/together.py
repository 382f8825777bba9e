"""Windows of several videos of one performer in one UNet call."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dpscale.diffusion.conditions import Conditions
from dpscale.diffusion.denoiser import PoseDenoiser
from dpscale.diffusion.refine import Predict, UNetCall


@dataclass(eq=False)
class _Asked:
    call: UNetCall
    prediction: Tensor | None = None
    error: Exception | None = None

    @property
    def is_answered(self) -> bool:
        return self.prediction is not None or self.error is not None


class Together:
    """Passes in several threads, whose UNet calls are made as one: whoever asks last calls for all.

    Passes come and go between calls. A call holds as many windows as theirs together, so memory grows with `window_batch` times the number
    of passes. One that is alone gets what it would get without all this, to the bit; several get it up to rounding, for batches of another
    size may take other kernels."""

    def __init__(self, denoiser: PoseDenoiser) -> None:
        self._denoiser = denoiser
        self._changed = threading.Condition()
        self._num_members = 0
        self._asked: list[_Asked] = []

    @contextmanager
    def member(self) -> Iterator[Predict]:
        """For the time of one pass. The others' calls wait for this one's next, so nothing slow belongs between two of them."""
        with self._changed:
            self._num_members += 1
        try:
            yield self._predict
        finally:
            with self._changed:
                self._num_members -= 1
                self._changed.notify_all()

    def _predict(self, call: UNetCall) -> Float[Tensor, "B C F h w"]:
        mine = _Asked(call)
        with self._changed:
            self._asked.append(mine)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: mine.is_answered or len(self._asked) == self._num_members)
                if mine.is_answered:
                    break
                asked, self._asked = self._asked, []
            self._answer(asked)
        if mine.error is not None:
            raise mine.error
        assert mine.prediction is not None
        return mine.prediction

    def _answer(self, asked: list[_Asked]) -> None:
        """Whoever asks meanwhile waits: the members that are being answered have not asked again."""
        try:
            for one, prediction in zip(asked, predict_together(self._denoiser, [one.call for one in asked]), strict=True):
                one.prediction = prediction
        except Exception as error:  # each of them raises it, in its own thread
            for one in asked:
                one.error = error
        with self._changed:
            self._changed.notify_all()


@torch.no_grad()
def predict_together(denoiser: PoseDenoiser, calls: Sequence[UNetCall]) -> list[Float[Tensor, "B C F h w"]]:
    """The UNet's answer to each, with one call for all whose windows have the same shape (C, F, h, w)."""
    answers: dict[int, Tensor] = {}
    for those in _alike(calls):
        several = [calls[number] for number in those]
        noisy, timestep = torch.cat([call.noisy for call in several]), torch.cat([call.timestep for call in several])
        predictions = denoiser(noisy, timestep, _joined([call.conditions for call in several])).split([len(call.noisy) for call in several])
        answers |= dict(zip(those, predictions, strict=True))
    return [answers[number] for number in range(len(calls))]


def _alike(calls: Sequence[UNetCall]) -> list[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, call in enumerate(calls):
        groups.setdefault(tuple(call.noisy.shape[1:]), []).append(number)
    return list(groups.values())


def _joined(conditions: Sequence[Conditions]) -> Conditions:
    """Of all, one after the other, where pose maps are encoded already."""

    def joined(name: str) -> Tensor | None:
        found = [getattr(told, name) for told in conditions]
        return None if found[0] is None else torch.cat(found)

    embedding = torch.cat([told.image_embedding for told in conditions])
    return Conditions({}, embedding, joined("reference_latents"), joined("pose_features"))

"""An exponential moving average of the trained parameters beside any engine: resumable with it, and what is saved at the end."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dpscale.finetune.loop import Engine


def start_averages(parameters: Mapping[str, nn.Parameter], state: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The averages of an earlier AveragedEngine.state(), or else copies of the parameters, where these lie.

    Call before an engine is made: ZeRO-3 takes the parameters apart."""
    if state is None:
        return {name: p.detach().clone() for name, p in parameters.items()}
    return {name: state[f"average.{name}"].to(p.device, copy=True) for name, p in parameters.items()}


def averaged_parameters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`parameter.NAME` of an engine's state, from the averages where it has them."""
    names = [name.removeprefix("parameter.") for name in state if name.startswith("parameter.")]
    return {f"parameter.{name}": state.get(f"average.{name}", state[f"parameter.{name}"]) for name in names}


class AveragedEngine:
    """Implements loop.Engine around another one: average <- d average + (1 - d) parameter after every update.

    d = min(decay, (1 + n) / (10 + n)) at update n, so that a short training's average does not stay at its start (ours; the same
    warm-up as TensorFlow's ExponentialMovingAverage)."""

    def __init__(
        self,
        inner: Engine,
        parameters: Mapping[str, nn.Parameter],
        averages: dict[str, Tensor],
        decay: float,
        state: Mapping[str, Tensor] | None,
    ) -> None:
        """`averages`: from start_averages, before `inner` was made; `state`: where an earlier engine left off."""
        self._inner, self._parameters, self._averages, self._decay = inner, dict(parameters), averages, decay
        self._updates = 0 if state is None else int(state["step"])

    def backward(self, loss: Tensor) -> None:
        self._inner.backward(loss)

    @torch.no_grad()
    def step(self) -> None:
        self._inner.step()
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        values = self._values()
        for name, average in self._averages.items():
            # lerp leaves a value that did not move as it is, to the bit: the frozen inputs of a widened convolution.
            average.lerp_(values[name].to(average), 1 - decay)

    def set_lr(self, lr: float) -> None:
        self._inner.set_lr(lr)

    def state(self) -> dict[str, Tensor]:
        """The inner engine's, and `average.NAME`."""
        averages = {f"average.{name}": a.to("cpu", torch.float32, copy=True).contiguous() for name, a in self._averages.items()}
        return self._inner.state() | averages

    def close(self) -> None:
        self._inner.close()

    def _values(self) -> dict[str, Tensor]:
        """The parameters; where ZeRO-3 has taken them apart, put together from every worker."""
        if all(p.shape == self._averages[name].shape for name, p in self._parameters.items()):
            return {name: p.detach() for name, p in self._parameters.items()}
        state = self._inner.state()
        return {name: state[f"parameter.{name}"] for name in self._parameters}

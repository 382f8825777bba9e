"""The training loop: steps in order, nothing else. Finetuning, the decoder and base pretraining all run through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's running averages of the gradient and of its square, as torch and DeepSpeed name them."""


@runtime_checkable
class Engine(Protocol):
    """Turns losses into updates."""

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of `loss` to those since the last update."""
        ...

    def step(self) -> None:
        """One optimiser update; gradients are zero afterwards."""
        ...

    def set_lr(self, lr: float) -> None: ...

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, in fp32 on the CPU: `parameter.NAME`, `exp_avg.NAME`, `exp_avg_sq.NAME` and `step`.

        Independent of the engine, of ZeRO's level and of the number of workers. Collective: every worker calls it."""
        ...

    def close(self) -> None:
        """Gives back what the engine holds; the parameters' values may be gone with it."""
        ...


def train(
    engine: Engine,
    step: Callable[[int], Tensor],
    num_steps: int,
    *,
    start_step: int = 0,
    accumulate: int = 1,
    save: Callable[[int], object] | None = None,
    log: Callable[[int, float], object] | None = None,
    lr_schedule: Callable[[int], float] | None = None,
) -> None:
    """Steps start_step .. num_steps-1. `step(i)` gives the loss of step i; `log(done, loss)` and `save(done)` follow each update.

    With `accumulate` n, step i is the mean of step(n i) .. step(n i + n - 1), one after the other in memory.

    Raises FloatingPointError, before the weights are touched, when the loss is not finite."""
    for number in range(start_step, num_steps):
        if lr_schedule is not None:
            engine.set_lr(lr_schedule(number))
        value = sum(_backward(engine, step(number * accumulate + part) / accumulate, number) for part in range(accumulate))
        engine.step()
        if log is not None:
            log(number + 1, value)
        if save is not None:
            save(number + 1)


def _backward(engine: Engine, loss: Tensor, number: int) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss is {value} at step {number}: lower the learning rate")
    engine.backward(loss)
    return value


def lr_factor(schedule: Literal["constant", "cosine"], step: int, num_steps: int) -> float:
    """Of the learning rate at `step` (0 .. num_steps - 1); cosine (Loshchilov and Hutter 2017, Eq. 5, one period) falls from 1 towards 0."""
    return 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * step / num_steps))


def every(interval: int, last: int, action: Callable[[int], object]) -> Callable[[int], None]:
    """`action` after each `interval` steps and after the last one."""

    def act(done: int) -> None:
        if done % interval == 0 or done == last:
            action(done)

    return act


class TorchEngine:
    """AdamW on named parameters of one process."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], groups: list[dict[str, Any]], lr: float, state: Mapping[str, Tensor] | None = None):
        """`groups`: parameter groups that cover `parameters` (TrainablePart.groups); `state`: where an earlier engine left off."""
        self.parameters = dict(parameters)
        self.optimizer = torch.optim.AdamW(groups, lr=lr)
        if state is not None:
            self.load_state(state)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def state(self) -> dict[str, Tensor]:
        return engine_state(self.parameters, self.optimizer)

    def close(self) -> None:
        self.optimizer.state.clear()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        load_parameters(self.parameters, state)
        load_moments(self.parameters, self.optimizer, state)


def engine_state(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Engine.state of an unpartitioned optimiser. A parameter that never had a gradient has zero moments."""
    steps = [int(optimizer.state[p]["step"]) for p in parameters.values() if p in optimizer.state]
    state = {"step": torch.tensor(max(steps, default=0))}
    for name, parameter in parameters.items():
        state[f"parameter.{name}"] = _copy(parameter)
        moments = optimizer.state.get(parameter, {})
        for moment in MOMENTS:
            state[f"{moment}.{name}"] = _copy(moments.get(moment, torch.zeros_like(parameter)))
    return state


@torch.no_grad()
def load_parameters(parameters: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(state[f"parameter.{name}"])


def load_moments(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    step = int(state["step"])
    if step == 0:
        return
    for name, parameter in parameters.items():
        moments = {moment: state[f"{moment}.{name}"].to(parameter.device, copy=True) for moment in MOMENTS}
        optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()

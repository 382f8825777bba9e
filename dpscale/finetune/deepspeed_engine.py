"""DeepSpeed's engine behind loop.Engine, at every level of ZeRO and offload. The only file that imports deepspeed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.cpp_extension import get_default_build_root

from dpscale.config.schema import Config
from dpscale.finetune.loop import MOMENTS, Engine, engine_state, load_moments, load_parameters
from dpscale.finetune.performer import MakeEngine
from dpscale.finetune.trainable import TrainablePart
from dpscale.finetune.training_phases import TracedPhase
from dpscale.finetune.zero_offload import deepspeed_settings

log = logging.getLogger(__name__)


def cpu_adam_loads() -> bool:
    """Whether DeepSpeed's CPUAdam was compiled at set-up and loads; a worker never compiles. Without it torch's AdamW does the same, more slowly."""
    from deepspeed.ops.op_builder import CPUAdamBuilder

    extensions = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    if not any(extensions.rglob("cpu_adam.so")):
        log.warning("DeepSpeed's CPUAdam is not compiled in %s (`make setup` does it); torch's AdamW takes its place", extensions)
        return False
    try:
        CPUAdamBuilder().load(verbose=False)
    except (RuntimeError, OSError, ImportError) as error:
        log.warning("DeepSpeed's CPUAdam does not load (%s); torch's AdamW takes its place", str(error).splitlines()[0])
        return False
    return True


def deepspeed_engines(config: Config, world_size: int) -> MakeEngine:
    """A factory of DeepSpeed engines for the processes of the current torch.distributed group."""
    import deepspeed

    # Built for collectives that training never calls; without a compiler its build would end the run.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    finetune_settings = config.finetune
    cpu_adam = finetune_settings.offload != "none" and cpu_adam_loads()

    def make(part: TrainablePart, lr: float, state: Mapping[str, Tensor] | None) -> Engine:
        settings = deepspeed_settings(finetune_settings, world_size, lr=lr, cpu_adam=cpu_adam)
        return DeepSpeedEngine(part, settings, finetune_settings.weight_decay, state)

    return make


class DeepSpeedEngine:
    """Implements loop.Engine with DeepSpeed, at every level of ZeRO."""

    def __init__(self, part: TrainablePart, settings: dict[str, Any], weight_decay: float, state: Mapping[str, Tensor] | None) -> None:
        import deepspeed

        self.parameters = part.parameters
        self.stage: int = settings["zero_optimization"]["stage"]
        if state is not None:
            load_parameters(part.parameters, state)  # before ZeRO copies them
        groups = part.groups(weight_decay)
        self.engine, *_ = deepspeed.initialize(model=part.module, model_parameters=groups, config=settings, dist_init_required=False)
        self._load_moments(state)

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)

    def step(self) -> None:
        self.engine.step()

    def set_lr(self, lr: float) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr

    def close(self) -> None:
        self.engine.destroy()

    def state(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        inner = self.engine.basic_optimizer
        if self.stage == 0:
            return engine_state(self.parameters, inner)
        state = {"step": torch.tensor(max(int(s["step"]) for s in inner.state.values()))}
        for name, parameter in self.parameters.items():
            state[f"parameter.{name}"] = _on_cpu(safe_get_full_fp32_param(parameter))
            for moment in MOMENTS:
                state[f"{moment}.{name}"] = _on_cpu(safe_get_full_optimizer_state(parameter, moment))
        return state

    def _load_moments(self, state: Mapping[str, Tensor] | None) -> None:
        """Moments exist from the start, zero at first: ZeRO links a parameter to its moments once, after the update of the first group."""
        from deepspeed.ops.adam import DeepSpeedCPUAdam
        from deepspeed.utils import safe_set_full_optimizer_state

        inner = self.engine.basic_optimizer
        if self.stage == 0:
            if state is not None:
                load_moments(self.parameters, inner, state)
            return
        zero = self.engine.optimizer
        step = 0 if state is None else int(state["step"])
        for flat in zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups:
            moments = {moment: torch.zeros_like(flat) for moment in MOMENTS}
            inner.state[flat] = {"step": step if isinstance(inner, DeepSpeedCPUAdam) else torch.tensor(float(step)), **moments}
        if self.stage < 3:
            zero._lazy_init_hp_params_optimizer_state()
        for name, parameter in self.parameters.items() if state is not None else ():
            for moment in MOMENTS:
                safe_set_full_optimizer_state(parameter, state[f"{moment}.{name}"].to(parameter.device), moment)


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def estimated_states(offload: str, phase: TracedPhase, workers: int) -> tuple[int, int]:
    """DeepSpeed's own estimate, in bytes on each GPU and on the host, of all workers on one node: states of what trains, no activations.

    It counts 16-bit weights and knows no frozen ones: theirs, four bytes each, are added where they lie."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    frozen, trained = phase.weights - phase.trained, phase.trained // 4
    if offload == "parameters":
        host, gpu, _ = estimate_zero3_model_states_mem_needs(trained, phase.largest // 4, num_gpus_per_node=workers)
        return gpu, host + frozen
    host, gpu = estimate_zero2_model_states_mem_needs(trained, num_gpus_per_node=workers, cpu_offload=offload == "optimizer")
    return gpu + frozen, host

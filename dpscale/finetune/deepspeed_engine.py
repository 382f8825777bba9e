"""DeepSpeed's engine behind loop.Engine, at every level of ZeRO and offload. The only file that imports deepspeed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.utils.cpp_extension import get_default_build_root

from dpscale.config.schema import Config, FinetuneConfig
from dpscale.data.types import InputError
from dpscale.finetune.loop import MOMENTS, Engine, engine_state, load_moments, load_parameters
from dpscale.finetune.performer import MakeEngine
from dpscale.finetune.trainable import TrainablePart
from dpscale.finetune.training_phases import TracedPhase
from dpscale.finetune.zero_offload import deepspeed_settings

log = logging.getLogger(__name__)


def cpu_adam_loads() -> bool:
    """Whether DeepSpeed's CPUAdam was compiled at set-up and loads; a worker never compiles. Without it torch's AdamW does the same, more slowly."""
    problem = _load_compiled("cpu_adam")
    if problem:
        log.warning("DeepSpeed's CPUAdam %s; torch's AdamW takes its place", problem)
    return not problem


def require_async_io() -> None:
    """Loads DeepSpeed's reading and writing through libaio. Raises InputError with the remedy where that was not compiled at set-up."""
    from deepspeed.ops.op_builder import PinMemoryBuilder

    problem = _load_compiled("pin_memory")
    if not problem:
        PinMemoryBuilder().load(verbose=False)  # makes its symbols visible to async_io
        problem = _load_compiled("async_io")
    if problem:
        raise InputError(
            f"finetune.offload = nvme: DeepSpeed's async_io {problem}. Install libaio's headers (Debian: libaio-dev), remove .venv/.setup and "
            "run `make setup` again, or set finetune.offload = parameters"
        )


def _load_compiled(name: str) -> str:
    """Loads an operation of DeepSpeed's from where set-up compiled it; what is wrong, or nothing. DeepSpeed's own loading would start ninja."""
    from deepspeed.ops.op_builder.builder import OpBuilder

    if name in OpBuilder._loaded_ops:
        return ""
    extensions = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    library = next(extensions.rglob(f"{name}.so"), None)
    spec = spec_from_file_location(name, library) if library else None
    if spec is None or spec.loader is None:
        return f"is not compiled in {extensions} (`make setup` does it)"
    try:
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    except (OSError, ImportError) as error:
        return f"does not load ({str(error).splitlines()[0]})"
    OpBuilder._loaded_ops[name] = module
    return ""


def deepspeed_engines(config: Config, world_size: int) -> MakeEngine:
    """A factory of DeepSpeed engines for the processes of the current torch.distributed group."""
    import deepspeed

    # Built for collectives that training never calls; without a compiler its build would end the run.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    finetune_settings = config.finetune
    cpu_adam = finetune_settings.offload != "none" and cpu_adam_loads()
    if finetune_settings.offload == "nvme":
        require_async_io()

    def make(part: TrainablePart, lr: float, state: Mapping[str, Tensor] | None) -> Engine:
        disk = nvme_folder(finetune_settings)
        settings = deepspeed_settings(
            finetune_settings, world_size, lr=lr, cpu_adam=cpu_adam, largest_parameter=max(p.numel() for p in part.module.parameters()),
            pin_memory=torch.cuda.is_available(), nvme_folder=Path(disk.name) if disk else None,
        )  # fmt: skip
        return DeepSpeedEngine(part, settings, finetune_settings.weight_decay, state, disk)

    return make


def nvme_folder(finetune: FinetuneConfig) -> TemporaryDirectory[str] | None:
    """A folder of one engine's own below finetune.nvme_path: DeepSpeed's file names repeat between processes, and it empties what it finds."""
    if finetune.offload != "nvme" or finetune.nvme_path is None:
        return None
    try:
        finetune.nvme_path.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(prefix="dpscale-", dir=finetune.nvme_path)
    except OSError as error:
        raise InputError(
            f"finetune.nvme_path = {finetune.nvme_path}: {error.strerror}; name a folder on a local disk that workers can write to"
        ) from error


class DeepSpeedEngine:
    """Implements loop.Engine with DeepSpeed, at every level of ZeRO."""

    def __init__(
        self,
        part: TrainablePart,
        settings: dict[str, Any],
        weight_decay: float,
        state: Mapping[str, Tensor] | None,
        disk: TemporaryDirectory[str] | None = None,
    ) -> None:
        """`disk`: the folder in `settings` that goes with this engine."""
        import deepspeed

        self.parameters, self.disk = part.parameters, disk
        self.stage: int = settings["zero_optimization"]["stage"]
        self._accumulating = False
        groups = part.groups(weight_decay)
        for group in groups:
            group["params"].sort(key=_size, reverse=True)  # zero_offload.SUB_GROUP says why
        if state is not None:
            load_parameters(part.parameters, state)  # before ZeRO copies them
        if self.stage == 3 and not any(hasattr(p, "ds_id") for p in part.parameters.values()):
            deepspeed.zero.Init(module=part.module, config_dict_or_path=settings)  # left to itself ZeRO-3 writes bfloat16 files on a CPU
        self.engine, *_ = deepspeed.initialize(model=part.module, model_parameters=groups, config=settings, dist_init_required=False)
        self._start_moments(0 if state is None else int(state["step"]))
        if state is not None:
            self._load_moments(state)

    def backward(self, loss: Tensor) -> None:
        if self._accumulating:
            self.engine.step()  # between the clips of one update it only counts them
            if self.stage > 0:
                self.engine.optimizer.clear_backward_seen_flag()  # as engine.forward does: without it ZeRO-3 keeps the last clip's gradients alone
        self.engine.backward(loss, scale_wrt_gas=False)  # the loop has divided
        self._accumulating = True

    def step(self) -> None:
        self.engine.step()
        self._accumulating = False

    def set_lr(self, lr: float) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr

    def close(self) -> None:
        self.engine.destroy()
        if self.disk is not None:
            self.disk.cleanup()

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

    def _start_moments(self, step: int) -> None:
        """Moments exist from the start, zero at first: ZeRO links a parameter to its moments once, after the update of the first group."""
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        if self.stage == 0:
            return
        inner, zero = self.engine.basic_optimizer, self.engine.optimizer
        count = int if isinstance(inner, DeepSpeedCPUAdam) else _float_tensor
        for index, flat in enumerate(zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups):
            on_disk = self.stage == 3 and zero._swappable_optimizer_subgroup(index)
            if on_disk:
                zero._optimizer_states_and_gradient_swap_in(index)  # until then `flat` is empty
            moments = {moment: torch.zeros_like(flat, requires_grad=False) for moment in MOMENTS}
            inner.state[flat] = {"step": count(step), **moments}
            if on_disk:
                zero._optimizer_states_and_gradient_swap_out(index)
        if self.stage < 3:
            zero._lazy_init_hp_params_optimizer_state()

    def _load_moments(self, state: Mapping[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        if self.stage == 0:
            load_moments(self.parameters, self.engine.basic_optimizer, state)
            return
        for name, parameter in self.parameters.items():
            for moment in MOMENTS:
                safe_set_full_optimizer_state(parameter, state[f"{moment}.{name}"].to(parameter.device), moment)


def _float_tensor(number: int) -> Tensor:
    return torch.tensor(float(number))


def _size(parameter: Tensor) -> int:
    """Elements, also of a parameter that ZeRO-3 has taken apart."""
    return getattr(parameter, "ds_numel", parameter.numel())


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def estimated_states(offload: str, phase: TracedPhase, workers: int) -> tuple[int, int]:
    """DeepSpeed's own estimate, in bytes on each GPU and on the host, of all workers on one node: states of what trains, no activations.

    It counts 16-bit weights and knows no frozen ones: theirs, four bytes each, are added where they lie. With nvme the disk holds the host's."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    frozen, trained = phase.weights - phase.trained, phase.trained // 4
    if offload in ("parameters", "nvme"):
        host, gpu, _ = estimate_zero3_model_states_mem_needs(trained, phase.largest // 4, num_gpus_per_node=workers)
        return gpu, host + frozen
    host, gpu = estimate_zero2_model_states_mem_needs(trained, num_gpus_per_node=workers, cpu_offload=offload == "optimizer")
    return gpu + frozen, host

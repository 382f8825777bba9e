"""DeepSpeed's engine against plain torch, at every level, in processes of their own: DeepSpeed holds on to what a process began with."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpscale.config.schema import Config, FinetuneConfig
from dpscale.data.types import InputError
from dpscale.finetune.deepspeed_engine import cpu_adam_loads, deepspeed_engines, nvme_folder, require_async_io
from dpscale.finetune.loop import TorchEngine, lr_factor, train
from dpscale.finetune.lora import adapted
from dpscale.finetune.performer import MakeEngine
from dpscale.finetune.trainable import TrainablePart, trainable_denoiser, unfrozen
from tests.small_performer import small_model
from tests.unit.diffusion.models import CHANNELS, LATENT, random_conditions

State = dict[str, Tensor]
LEVELS = [(offload, cpu_adam) for offload in ("none", "optimizer", "parameters", "nvme") for cpu_adam in (True, False)][1:]
CHAIN = ("none", "optimizer", "parameters", "nvme", "none")
SKIP = {True: "DeepSpeed's CPUAdam or async_io is not compiled here: `make setup` does it", False: "DeepSpeed's async_io is not compiled here"}


class _Widened(nn.Module):
    """What DeepSpeed meets in the denoiser, in miniature (ZeRO-3 takes seconds a step for a UNet): frozen, partly frozen and trained tensors,
    below and above the size that goes to the disk, and small ones between large ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in, self.frozen = nn.Conv2d(6, 640, 3, padding=1), nn.Conv2d(640, 640, 1)
        layers = nn.Conv2d(640, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 640, 3, padding=1), nn.SiLU(), nn.Conv2d(640, 6, 1)
        self.temporal = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.temporal(self.frozen(self.conv_in(x)))

    def part(self) -> TrainablePart:
        trained = {name: p for name, p in self.named_parameters() if name == "conv_in.weight" or name.startswith("temporal.")}
        return TrainablePart(self, trained, {"conv_in.weight": 4})

    def loss(self, step: int, rank: int = 0, world_size: int = 1) -> Tensor:
        """Of two samples, one a worker."""
        x = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(step))[rank::world_size]
        return (self(x) - x).square().mean()


def _run(start: int, end: int, state: State | None, make: MakeEngine, rank: int = 0, world_size: int = 1, accumulate: int = 1) -> State:
    module = _Widened()
    with unfrozen(module.part()), closing(make(module.part(), 1e-3, state)) as engine:
        train(
            engine, lambda step: module.loss(step, rank, world_size), end, start_step=start, accumulate=accumulate,
            lr_schedule=lambda step: 1e-3 * lr_factor("cosine", step, 6),
        )  # fmt: skip
        return engine.state()


def _plain_torch(accumulate: int = 1) -> State:
    return _run(0, 6, None, lambda part, lr, state: TorchEngine(part.parameters, part.groups(0.01), lr, state), accumulate=accumulate)


def _engines(offload: str, folder: Path, world_size: int = 1, batch_clips: int | None = None) -> MakeEngine:
    settings = {"offload": offload, "nvme_path": folder / "disk", "batch_clips": batch_clips}
    return deepspeed_engines(Config(finetune=FinetuneConfig.model_validate(settings)), world_size)


def _in_processes(number: int, folder: Path, job: Callable[..., Any], *arguments: object) -> Any:
    """`job(rank, number, folder, *arguments)` in `number` processes of one group; what the first one returns."""
    folder.mkdir()
    torch.multiprocessing.spawn(_process, (number, folder, job, arguments), nprocs=number)
    return torch.load(folder / "result.pt", weights_only=True)


def _process(rank: int, number: int, folder: Path, job: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    os.environ.update(LOCAL_RANK=str(rank), DS_ACCELERATOR="cpu")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", store=torch.distributed.FileStore(str(folder / "store"), number), rank=rank, world_size=number)
    result = job(rank, number, folder, *arguments)
    if rank == 0:
        torch.save(result, folder / "result.pt")


def _has_async_io() -> bool:
    try:
        require_async_io()
    except InputError:
        return False
    return True


def _forget_cpu_adam(folder: Path) -> None:
    from deepspeed.ops.op_builder.builder import OpBuilder

    OpBuilder._loaded_ops.pop("cpu_adam", None)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder / "nothing_compiled")


def _every_level(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """States after six steps at every level, in one go and resumed after the third; and after a step or two at each level of CHAIN."""
    has_async_io, has_cpu_adam, states = _has_async_io(), cpu_adam_loads(), {}
    for wants_cpu_adam in (True, False):
        if not wants_cpu_adam:
            _forget_cpu_adam(folder)
        elif not has_cpu_adam:
            continue
        for offload in [o for o, wants in LEVELS if wants == wants_cpu_adam and (o != "nvme" or has_async_io)]:
            make = _engines(offload, folder)
            states[f"{offload}-{wants_cpu_adam}"] = _run(0, 6, None, make), _run(3, 6, _run(0, 3, None, make), make)
        if has_async_io:
            states[f"chain-{wants_cpu_adam}"] = _chain(folder)
    states["accumulated"] = _run(0, 6, None, _engines("none", folder, batch_clips=2), accumulate=2)
    left = list((folder / "disk").iterdir()) if has_async_io else []
    return {"states": states, "left": [path.name for path in left]}


def _chain(folder: Path) -> State:
    state = None
    for number, offload in enumerate(CHAIN):
        state = _run(number, 6 if number == 4 else number + 1, state, _engines(offload, folder))
    assert state is not None
    return state


def _some_steps(rank: int, world_size: int, folder: Path, start: int, before: dict[str, State]) -> dict[str, State]:
    """Two steps at every level that can be had here."""
    levels = ["none", "optimizer", "parameters", "nvme"] if _has_async_io() else ["none", "optimizer", "parameters"]
    return {o: _run(start, start + 2, before.get(o), _engines(o, folder, world_size), rank, world_size) for o in levels}


@pytest.fixture(scope="module")
def levels(session_folder: Path) -> dict[str, Any]:
    return _in_processes(1, session_folder / "levels", _every_level)


def assert_close(found: State, expected: State, atol: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("offload", "cpu_adam"), LEVELS)
def test_every_level_agrees_with_plain_torch_and_resumes_to_the_bit(levels: dict[str, Any], offload: str, cpu_adam: bool):
    if f"{offload}-{cpu_adam}" not in levels["states"]:
        pytest.skip(SKIP[cpu_adam])
    whole, resumed = levels["states"][f"{offload}-{cpu_adam}"]
    assert_close(whole, _plain_torch())
    assert torch.equal(whole["parameter.conv_in.weight"][:, :4], _Widened().conv_in.weight[:, :4])
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    assert int(whole["step"]) == 6


@pytest.mark.parametrize("cpu_adam", [True, False])
def test_a_run_goes_on_at_another_level(levels: dict[str, Any], cpu_adam: bool):
    if f"chain-{cpu_adam}" not in levels["states"]:
        pytest.skip(SKIP[cpu_adam])
    assert_close(levels["states"][f"chain-{cpu_adam}"], _plain_torch())


def test_losses_of_one_update_add_up(levels: dict[str, Any]):
    assert_close(levels["states"]["accumulated"], _plain_torch(accumulate=2))


def test_engines_take_their_files_with_them(levels: dict[str, Any]):
    assert levels["left"] == []


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_workers(tmp_path: Path):
    """Two workers, then one, then two again, at every level."""
    states: dict[str, State] = {}
    for start, number in ((0, 2), (2, 1), (4, 2)):
        states = _in_processes(number, tmp_path / str(start), _some_steps, start, states)
    expected = _plain_torch()
    for state in states.values():  # the mean of two workers rounds otherwise, and AdamW enlarges that where a gradient is almost zero
        assert_close(state, expected, atol=1e-4)  # a tenth of one update
        assert all((state[name] - tensor).abs().double().mean() < 1e-7 for name, tensor in expected.items())


def _train_adapters(make: MakeEngine, rank: int = 0, world_size: int = 1) -> State:
    """Two steps of rank-2 adapters of the real denoiser's temporal layers, on two samples, one a worker."""
    denoiser = small_model().denoiser

    def error(seed: int) -> Tensor:
        noisy = torch.randn(1, CHANNELS, 3, LATENT, LATENT, generator=torch.Generator().manual_seed(seed))
        return (denoiser(noisy, torch.tensor([300]), random_conditions(1, 3, seed)) - noisy).square().mean()

    def loss(step: int) -> Tensor:
        return torch.stack([error(2 * step + sample) for sample in range(rank, 2, world_size)]).mean()

    with adapted(denoiser, 2, seed=0):
        part = trainable_denoiser(denoiser, "temporal")
        with unfrozen(part), closing(make(part, 1e-3, None)) as engine:
            train(engine, loss, 2)
            return engine.state()


def _adapters(rank: int, world_size: int, folder: Path) -> dict[str, State]:
    return {o: _train_adapters(_engines(o, folder, world_size), rank, world_size) for o in ("none", "optimizer", "parameters")}


@pytest.mark.slow
def test_adapters_of_two_workers_are_those_of_one_process(tmp_path: Path):
    found = _in_processes(2, tmp_path / "adapters", _adapters)
    expected = _train_adapters(lambda part, lr, state: TorchEngine(part.parameters, part.groups(0.01), lr, state))
    assert any("lora_B" in name and tensor.abs().max() > 1e-3 for name, tensor in expected.items() if name.startswith("parameter."))
    for state in found.values():
        assert_close(state, expected, atol=1e-4)  # a tenth of one update: A's first gradients, behind B = 0, are rounding errors


def test_missing_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    from deepspeed.ops.op_builder.builder import OpBuilder

    monkeypatch.setattr(OpBuilder, "_loaded_ops", {})
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert not cpu_adam_loads()
    assert "torch's AdamW takes its place" in caplog.text
    with pytest.raises(InputError, match=r"libaio-dev.*set finetune\.offload = parameters"):
        require_async_io()
    (tmp_path / "cpu_adam").mkdir()
    (tmp_path / "cpu_adam" / "cpu_adam.so").write_bytes(b"of another machine")
    assert not cpu_adam_loads()
    assert "does not load" in caplog.text


def test_a_disk_that_cannot_be_written_to_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"finetune\.nvme_path = .*file/disk: .*; name a folder"):
        nvme_folder(FinetuneConfig(offload="nvme", nvme_path=tmp_path / "file" / "disk"))

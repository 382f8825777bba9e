from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dpscale.data.types import InputError
from dpscale.diffusion.delta import load_delta
from dpscale.finetune.checkpoint import settings_hash
from dpscale.finetune.loop import TorchEngine
from dpscale.finetune.performer import finetune_performer, is_finetuned, training_clip
from dpscale.tracking.tracker import FileTracker, NullTracker
from tests.small_performer import small_run


class StoppedError(RuntimeError):
    pass


class StopAfter(TorchEngine):
    """An engine whose process is killed at an update: what was not committed is lost."""

    updates_left = 0

    def step(self) -> None:
        if StopAfter.updates_left == 0:
            raise StoppedError
        StopAfter.updates_left -= 1
        super().step()


def engines(kind: type[TorchEngine]):
    return lambda part, lr, state: kind(part.parameters, part.groups(0.01), lr, state)


def run(root: Path, kind: type[TorchEngine] = TorchEngine, **finetune: object):
    config, layout, model = small_run(root, ("ann",), **finetune)
    finetune_performer(config, layout, "ann", model, engines(kind), NullTracker(), settings_hash(config, layout.shard("ann", "main")))
    return config, layout, model


def results(folder: Path) -> dict[str, dict[str, Tensor]]:
    return {name: load_file(folder / f"{name}.safetensors") for name in ("denoiser", "decoder")}


def test_writes_what_changed_and_leaves_the_base(tmp_path: Path):
    config, layout, model = small_run(tmp_path, ("ann",))
    before = {name: t.clone() for name, t in model.denoiser.state_dict().items()}
    settings = settings_hash(config, layout.shard("ann", "main"))
    tracker = FileTracker(tmp_path / "tracking.jsonl", {})
    finetune_performer(config, layout, "ann", model, engines(TorchEngine), tracker, settings)
    assert is_finetuned(layout, "ann", settings)
    assert not is_finetuned(layout, "ann", "other settings")
    folder = layout.finetune("ann")
    assert sorted(path.name for path in folder.iterdir()) == ["_COMPLETE.json", "card.json", "decoder.safetensors", "denoiser.safetensors"]
    card = json.loads((folder / "card.json").read_text())["phases"]
    deltas = results(folder)
    assert {name: (card[name]["steps"], len(card[name]["losses"])) for name in card} == {"denoiser": (6, 6), "decoder": (4, 4)}
    assert {name: set(card[name]["trained"]) for name in card} == {name: set(delta) for name, delta in deltas.items()}
    assert {name: card[name]["bytes"] for name in card} == {name: (folder / f"{name}.safetensors").stat().st_size for name in card}
    assert all(torch.equal(t, before[name]) for name, t in model.denoiser.state_dict().items())
    load_delta(folder / "denoiser.safetensors", model.denoiser)
    changed = {name for name, t in model.denoiser.state_dict().items() if not torch.equal(t, before[name])}
    assert changed <= set(deltas["denoiser"])
    assert "pose_encoder.spatial.iuv.conv_out.weight" in changed
    points = [json.loads(line) for line in (tmp_path / "tracking.jsonl").read_text().splitlines()]
    means = {name: point["values"][name] for point in points if point["event"] == "metrics" for name in point["values"]}
    assert means == {f"{name}_loss": pytest.approx(sum(card[name]["losses"]) / len(card[name]["losses"])) for name in card}


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}, {"lora_rank": 2}, {"lora_rank": 2, "ema_decay": 0.9}])
@pytest.mark.parametrize("updates", [1, 5, 6, 9])
def test_resumed_equals_uninterrupted_to_the_bit(tmp_path: Path, updates: int, options: dict):
    _, whole, _ = run(tmp_path / "whole", **options)
    StopAfter.updates_left = updates
    with pytest.raises(StoppedError):
        run(tmp_path / "cut", StopAfter, **options)
    _, resumed, _ = run(tmp_path / "cut", **options)
    expected, found = results(whole.finetune("ann")), results(resumed.finetune("ann"))
    assert all(torch.equal(found[part][name], t) for part in expected for name, t in expected[part].items())
    cards = [json.loads((layout.finetune("ann") / "card.json").read_text())["phases"] for layout in (whole, resumed)]
    assert all(cards[0][part]["losses"] == cards[1][part]["losses"] for part in cards[0])


def test_adapters_of_one_performer_leave_no_trace_in_the_next(tmp_path: Path):
    config, layout, model = small_run(tmp_path / "both", ("ann", "zoe"), lora_rank=2)
    before = {name: t.clone() for name, t in model.denoiser.state_dict().items()}
    for name in ("ann", "zoe"):
        finetune_performer(config, layout, name, model, engines(TorchEngine), NullTracker(), settings_hash(config, layout.shard(name, "main")))
        assert model.denoiser.state_dict().keys() == before.keys()
        assert all(torch.equal(t, before[name]) for name, t in model.denoiser.state_dict().items())
    config, alone, fresh = small_run(tmp_path / "alone", ("zoe",), lora_rank=2)
    finetune_performer(config, alone, "zoe", fresh, engines(TorchEngine), NullTracker(), settings_hash(config, alone.shard("zoe", "main")))
    expected, found = results(alone.finetune("zoe")), results(layout.finetune("zoe"))
    assert all(torch.equal(found[part][name], t) for part in expected for name, t in expected[part].items())
    changed = [name for name, t in expected["denoiser"].items() if "lora_B" in name and bool(t.any())]
    assert changed == [name for name in expected["denoiser"] if "lora_B" in name]
    folder = layout.finetune("ann")
    card = json.loads((folder / "card.json").read_text())
    assert card["lora_rank"] == 2
    assert card["phases"]["denoiser"]["bytes"] == (folder / "denoiser.safetensors").stat().st_size
    assert set(card["phases"]["denoiser"]["trained"]) == set(load_file(folder / "denoiser.safetensors"))


def test_training_lowers_the_loss(tmp_path: Path):
    _, layout, _ = run(tmp_path, trainable="all", max_steps=40, epochs=1000, checkpoint_every=100)
    losses = json.loads((layout.finetune("ann") / "card.json").read_text())["phases"]["denoiser"]["losses"]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_missing_clip_names_folder_and_remedy(tmp_path: Path):
    _, layout, model = small_run(tmp_path, ())
    with pytest.raises(InputError, match=r"performer=ann/clip=main.*run `dpscale preprocess`"):
        training_clip(layout, "ann", model)


def test_what_is_saved_is_the_average_and_training_is_as_without(tmp_path: Path):
    _, plain, model = run(tmp_path / "plain")
    _, averaged, _ = run(tmp_path / "averaged", ema_decay=0.9)
    cards = [json.loads((layout.finetune("ann") / "card.json").read_text())["phases"] for layout in (plain, averaged)]
    assert all(cards[0][part]["losses"] == cards[1][part]["losses"] for part in cards[0])
    last, mean = results(plain.finetune("ann"))["denoiser"], results(averaged.finetune("ann"))["denoiser"]
    base = dict(model.denoiser.named_parameters())
    moved = [name for name in last if not torch.equal(last[name], base[name])]
    assert all((mean[name] - base[name]).norm() < (last[name] - base[name]).norm() for name in moved)
    assert all(not torch.equal(mean[name], base[name]) for name in moved)
    latent = model.denoiser.latent_channels
    assert torch.equal(mean["unet.conv_in.weight"][:, :latent], base["unet.conv_in.weight"][:, :latent])


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_recomputed_layers_and_validation_change_nothing_to_the_bit(tmp_path: Path, lora_rank: int | None):
    _, plain, _ = run(tmp_path / "plain", lora_rank=lora_rank)
    _, watched, _ = run(tmp_path / "watched", gradient_checkpointing=True, validate_every=2, lora_rank=lora_rank)
    expected, found = results(plain.finetune("ann")), results(watched.finetune("ann"))
    assert all(torch.equal(found[part][name], t) for part in expected for name, t in expected[part].items())


def test_bf16_stays_near_fp32_and_saves_fp32(tmp_path: Path):
    _, exact, _ = run(tmp_path / "fp32")
    _, rough, _ = run(tmp_path / "bf16", precision="bf16")
    cards = [json.loads((layout.finetune("ann") / "card.json").read_text())["phases"] for layout in (exact, rough)]
    for part in cards[0]:
        assert cards[1][part]["losses"] != cards[0][part]["losses"]
        assert cards[1][part]["losses"] == pytest.approx(cards[0][part]["losses"], rel=0.02)  # bf16 has 8 bits: 0.4 % a product
    assert all(t.dtype == torch.float32 for delta in results(rough.finetune("ann")).values() for t in delta.values())


def test_validation_videos_go_to_the_tracker(tmp_path: Path):
    config, layout, model = small_run(tmp_path, ("ann",), validate_every=4)
    tracker = FileTracker(tmp_path / "tracking.jsonl", {})
    finetune_performer(config, layout, "ann", model, engines(TorchEngine), tracker, settings_hash(config, layout.shard("ann", "main")))
    points = [json.loads(line) for line in (tmp_path / "tracking.jsonl").read_text().splitlines()]
    videos = [(Path(point["path"]), point["folder"]) for point in points if point["event"] == "artifact"]
    assert videos == [(layout.finetune("ann") / "validation-00000004.mp4", "validation")]
    with av.open(str(videos[0][0])) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3  # the clip's held-out frames

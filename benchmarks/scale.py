"""What do 1,000 performers and 10,000 videos cost at the paper's size, on 8, 64 and 1,000 H100s? Nothing is measured here: figures are those
of benchmarks/results, what no run has measured follows from counted operations or bytes and the assumptions below, and the wall clock is
that of the scheduler's own code in simulated time (benchmarks.scheduler_sim, with failures and preemptions). docs/scale.md has the tables.

Settings: jobs/configs/sd21.toml. A performer has a clip of `preprocess.max_frames`; a video is as long as in the simulation. Everything twice:
with what an H100 is assumed to reach in fp32, as refreshes and finetuning compute, and with what it might in bf16. `--markdown` prints the
tables of docs/scale.md from the JSON that is kept, and computes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import arguments, finish
from benchmarks.scheduler_sim import Question
from dpscale.config.load import load
from dpscale.config.schema import Config
from dpscale.finetune.performer import LOG_EVERY as LOG_EVERY_TRAINING_STEPS
from dpscale.joint.plan import num_refreshes, strength
from dpscale.joint.state import LOG_EVERY
from dpscale.scheduler.simulation import ServiceTimes

RESULTS = Path(__file__).parent / "results"
PRESET = Path(__file__).parents[1] / "jobs" / "configs" / "sd21.toml"
PERFORMERS, VIDEOS, SIZES = 1000, 10_000, (8, 64, 1000)
GIB, TIB = 2**30, 2**40
PIXEL = {"frames": 3, "mask": 1, "iuv": 3, "flow as float16": 4, "flow as float32": 8, "flow_valid": 1}
"""Bytes of a pixel (data/shards.py, joint/inputs.py)."""


FP32_TFLOPS, BF16_TFLOPS = 60.0, 400.0
"""Assumed of an H100 in the networks, 1e12 operations a second: 90 % of 67 (convolutions may use TF32, which is faster), 40 % of 989."""


@dataclass(frozen=True)
class Assumed:
    """What no run has measured."""

    tflops: float = FP32_TFLOPS
    flow_factor: float = 1.5
    """A field step with the human flow's loss against one without: flow_samples = samples / 4, two points each."""
    storage_gb_s: float = 1.0
    """Between one worker and the shared storage."""
    gpus_per_node: int = 8


def main() -> None:
    args = arguments(__doc__ or "", markdown={"action": "store_true"})
    if args.markdown:
        print(tables(_result("scale")))
        return
    config = load(PRESET)
    result, rows = answer(config, counts(config), SIZES)
    finish("scale", args.json, result, rows)


def answer(config: Config, counted: dict[str, float], sizes: Sequence[int]) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """What is kept, and a row a size of cluster and speed of its GPUs."""
    known, rows, found = measured(), [], {}
    for assumed in (Assumed(), Assumed(BF16_TFLOPS)):
        unit, times = units(config, known, counted, assumed), service_times(config, known, counted, assumed)
        num_frames = sum(job.num_frames for job in Question(times, VIDEOS, 8, config.joint.steps).jobs)
        found[f"{assumed.tflops:g}"] = {"units": unit, "totals": totals(unit, num_frames), "service_times": vars(times)}
        rows += [row(gpus, unit, num_frames, simulated_h(times, gpus, config.joint.steps), assumed) for gpus in sizes]
    return {"assumed": asdict(Assumed()), "measured": known, "counted": counted, "num_frames": num_frames, "at_tflops": found}, rows


def measured() -> dict[str, float]:
    """Per unit, from runs."""
    preprocess = _result("preprocess_full")
    fastest = max(row["frames_per_s"] for row in preprocess["rows"])
    return {
        "preprocess_core_s_per_frame": preprocess["machine"]["cores"] / fastest,
        "field_step_s": _result("fit_quality_h100")["step_ms"] / 1000,
        "mlflow_rows_per_s": _result("tracking")["value"],
    }


def _result(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def counts(config: Config) -> dict[str, float]:
    """Operations (1e12) and bytes of the networks, on tensors without storage."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    from dpscale.diffusion.untrained import untrained_model
    from dpscale.field.video_field import VideoField
    from dpscale.finetune.trainable import trainable_denoiser, unfrozen
    from dpscale.finetune.training_phases import decoder_loss, decoder_part, denoiser_loss, without_storage

    with torch.device("meta"):
        model = untrained_model(config.diffusion)
    found: dict[str, float] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in (model.denoiser, model.autoencoder):
            without_storage(module)
        for name, part, loss, frames in (
            ("denoiser", trainable_denoiser(model.denoiser, config.finetune.trainable), denoiser_loss, config.finetune.clip_frames),
            ("decoder", decoder_part(model), decoder_loss, config.finetune.decoder.batch_size),
        ):
            with unfrozen(part), FlopCounterMode(display=False) as forward:
                value = loss(config, model)
            with unfrozen(part), FlopCounterMode(display=False) as backward:
                value.backward()
            found[f"{name}_forward_tflop_per_frame"] = forward.get_total_flops() / frames / 1e12
            found[f"{name}_step_tflop"] = (forward.get_total_flops() + backward.get_total_flops()) / 1e12
            found[f"{name}_trained_bytes"] = sum(parameter.nbytes for parameter in part.parameters.values())
        with FlopCounterMode(display=False) as encoding:
            model.autoencoder.encode(torch.zeros(1, 3, config.preprocess.size, config.preprocess.size))
        found["encoder_tflop_per_frame"] = encoding.get_total_flops() / 1e12
    field = VideoField(config.field, 16, config.preprocess.size, config.preprocess.size, torch.Generator())
    found["field_state_bytes"] = 3 * sum(parameter.nbytes for parameter in field.parameters())  # and Adam's two moments
    return found


def units(config: Config, known: dict[str, float], counted: dict[str, float], assumed: Assumed) -> dict[str, float]:
    """Of a performer, a video, and a frame of a video."""
    num_train = round(config.preprocess.max_frames * config.preprocess.train_fraction)
    denoiser_steps = -(-round(config.finetune.epochs * num_train) // config.finetune.clip_frames)
    decoder_steps = config.finetune.decoder.steps
    training = denoiser_steps * counted["denoiser_step_tflop"] + decoder_steps * counted["decoder_step_tflop"]
    passes, pixels = num_refreshes(config.joint) + 1, config.preprocess.size**2
    steps = config.joint.warm_up_steps + config.joint.steps
    slices = -(-steps // config.scheduler.slice_steps) + passes
    delta = counted["denoiser_trained_bytes"] + counted["decoder_trained_bytes"]
    known_pixel = sum(PIXEL[name] for name in ("frames", "iuv", "mask"))
    shard_pixel = known_pixel + PIXEL["flow as float16"] + PIXEL["flow_valid"]
    return {
        "preprocess_core_h_per_performer": config.preprocess.max_frames * known["preprocess_core_s_per_frame"] / 3600,
        "finetune_gpu_h_per_performer": training / assumed.tflops / 3600,
        "field_gpu_h_per_video": steps * known["field_step_s"] * assumed.flow_factor / 3600,
        "refresh_gpu_s_per_frame": strengths(config) * frame_tflop(config, counted) / assumed.tflops,
        "weights_bytes_per_performer": delta,
        "shard_bytes_per_performer": config.preprocess.max_frames * shard_pixel * pixels,
        "known_bytes_per_video": num_train * known_pixel * pixels,
        "states_bytes_per_video": 2 * counted["field_state_bytes"],
        "pose_bytes_per_frame": (PIXEL["iuv"] + PIXEL["flow as float32"] + PIXEL["flow_valid"]) * pixels,
        "pictures_bytes_per_frame": (passes + 1 + 3) * PIXEL["frames"] * pixels,  # V_p of every pass, V_s, three in the result
        "checkpoint_bytes_per_video": slices * counted["field_state_bytes"],
        "deltas_bytes_per_video": passes * delta,
        "mlflow_rows_per_performer": (denoiser_steps + decoder_steps) / LOG_EVERY_TRAINING_STEPS,
        "mlflow_rows_per_video": 3 * steps / LOG_EVERY + 2 * passes,
    }


def frame_tflop(config: Config, counted: dict[str, float]) -> float:
    """Of one frame in a pass of full strength: every step sees it in window / stride windows, twice with guidance."""
    calls = config.diffusion.sampling_steps * config.diffusion.window / config.diffusion.stride * (2 if config.diffusion.guidance_scale > 1 else 1)
    return calls * counted["denoiser_forward_tflop_per_frame"] + counted["encoder_tflop_per_frame"] + counted["decoder_forward_tflop_per_frame"]


def strengths(config: Config) -> float:
    """Of all passes of a video, in passes of full strength."""
    return sum(strength(config.joint, refresh) for refresh in range(num_refreshes(config.joint) + 1))


def service_times(config: Config, known: dict[str, float], counted: dict[str, float], assumed: Assumed) -> ServiceTimes:
    state_s = counted["field_state_bytes"] / 1e9 / assumed.storage_gb_s
    delta_s = (counted["denoiser_trained_bytes"] + counted["decoder_trained_bytes"]) / 1e9 / assumed.storage_gb_s
    return ServiceTimes(
        field_step_s=known["field_step_s"] * assumed.flow_factor, slice_s=state_s, load_s=state_s,
        refresh_frame_s=frame_tflop(config, counted) / assumed.tflops, refresh_s=delta_s,
    )  # fmt: skip


def simulated_h(times: ServiceTimes, gpus: int, steps: int) -> float:
    """Of all videos under critical_path, where processes die and spot nodes go."""
    return Question(times, VIDEOS, gpus, steps).course("critical_path").makespan_s / 3600


def totals(unit: dict[str, float], num_frames: int) -> dict[str, float]:
    """Whatever the number of GPUs."""
    finetune, field = PERFORMERS * unit["finetune_gpu_h_per_performer"], VIDEOS * unit["field_gpu_h_per_video"]
    refresh = num_frames * unit["refresh_gpu_s_per_frame"] / 3600
    kept = {
        "weights": PERFORMERS * unit["weights_bytes_per_performer"], "shards": PERFORMERS * unit["shard_bytes_per_performer"],
        "known": VIDEOS * unit["known_bytes_per_video"], "states": VIDEOS * unit["states_bytes_per_video"],
        "pose": num_frames * unit["pose_bytes_per_frame"], "pictures": num_frames * unit["pictures_bytes_per_frame"],
    }  # fmt: skip
    return {
        "preprocess_core_h": PERFORMERS * unit["preprocess_core_h_per_performer"],
        "finetune_gpu_h": finetune, "field_gpu_h": field, "refresh_gpu_h": refresh, "gpu_h": finetune + field + refresh,
        **{f"{name}_tib": size / TIB for name, size in kept.items()}, "kept_tib": sum(kept.values()) / TIB,
        "checkpoints_tib": VIDEOS * unit["checkpoint_bytes_per_video"] / TIB, "deltas_tib": VIDEOS * unit["deltas_bytes_per_video"] / TIB,
        "mlflow_rows": PERFORMERS * unit["mlflow_rows_per_performer"] + VIDEOS * unit["mlflow_rows_per_video"],
    }  # fmt: skip


def row(gpus: int, unit: dict[str, float], num_frames: int, videos_h: float, assumed: Assumed) -> dict[str, float]:
    """Of a cluster. Rates are those of the videos' time: network both ways, all workers together."""
    total, nodes = totals(unit, num_frames), -(-gpus // assumed.gpus_per_node)
    system_rows_per_s = nodes * (8 + 4 * min(gpus, assumed.gpus_per_node)) / 10 + 14 / 5  # tracking/system_metrics.py, scheduler/status.py
    moved_gb = (total["checkpoints_tib"] + total["deltas_tib"] + total["kept_tib"]) * TIB / 1e9
    video_rows = VIDEOS * unit["mlflow_rows_per_video"]
    finetune_h = total["finetune_gpu_h"] / gpus
    return {
        "tflops": assumed.tflops, "gpus": gpus, "finetune_h": finetune_h, "videos_h": videos_h, "days": (finetune_h + videos_h) / 24,
        "videos_over_work": videos_h * gpus / (total["field_gpu_h"] + total["refresh_gpu_h"]),
        "storage_gb_s": moved_gb / videos_h / 3600, "mlflow_rows_per_s": video_rows / videos_h / 3600 + system_rows_per_s,
        "mlflow_rows": total["mlflow_rows"] + system_rows_per_s * videos_h * 3600,
        "preprocess_cores_to_keep_up": total["preprocess_core_h"] / finetune_h,
    }  # fmt: skip


def tables(result: dict[str, Any]) -> str:
    """Of docs/scale.md, in Markdown."""
    slow, fast = (result["at_tflops"][f"{tflops:g}"]["totals"] for tflops in (FP32_TFLOPS, BF16_TFLOPS))
    kept = slow["kept_tib"]
    lines = ["| GPU-hours | 60 TFLOP/s | 400 TFLOP/s |", "|---|---|---|"]
    lines += [f"| {name} | {slow[f'{name}_gpu_h']:,.0f} | {fast[f'{name}_gpu_h']:,.0f} |" for name in ("finetune", "field", "refresh")]
    lines += [f"| together | {slow['gpu_h']:,.0f} | {fast['gpu_h']:,.0f} |", ""]
    lines += ["| storage | TiB | |", "|---|---|---|"]
    lines += [f"| {what} | {slow[f'{name}_tib']:.1f} | {why} |" for name, (what, why) in _KEPT.items()]
    lines += [f"| together | {kept:.1f} | |", ""]
    lines += ["| TFLOP/s | GPUs | finetuning, h | videos, h | over the work | storage, GB/s | MLflow, rows/s | rows in all, 1e6 |", "|---" * 8 + "|"]
    forms = {
        "tflops": "g", "gpus": ",", "finetune_h": ",.1f", "videos_h": ",.1f",
        "videos_over_work": ".2f", "storage_gb_s": ".2g", "mlflow_rows_per_s": ",.0f",
    }  # fmt: skip
    for each in result["rows"]:
        cells = [*(f"{each[name]:{form}}" for name, form in forms.items()), f"{each['mlflow_rows'] / 1e6:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


_KEPT = {
    "known": ("known frames", "`joint/VIDEO/inputs/`: of each video all training frames of its performer, decoded"),
    "pictures": ("pictures", "V_p of every pass, V_s, the result, raw"),
    "pose": ("pose", "IUV and flow of each video, decoded"),
    "shards": ("shards", "before compression, so at most"),
    "states": ("states", "two checkpoints a video"),
    "weights": ("weights", "a performer's temporal layers and decoder in fp32"),
}


if __name__ == "__main__":
    main()

"""`dpscale pretrain`: renders performers, trains `tiny` on them, measures it on performers that it never saw, writes the model and its card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from dpscale.config.schema import Config, DiffusionConfig
from dpscale.data.checkpoint import commit_folder
from dpscale.diffusion.conditions import Conditions, iuv_maps, skeleton_maps
from dpscale.diffusion.reference import ReferencePictures
from dpscale.diffusion.refine import refine
from dpscale.diffusion.weights import PoseVideoModel, References, tiny_model
from dpscale.finetune.checkpoint import TrainingState
from dpscale.finetune.pretrain import Log, encode_set, fit_encoder, half_precision, train_phase
from dpscale.finetune.training_set import POSES, RenderedSet, render_training_set, training_seeds

SIZE_PX = 128
Psnr = Callable[[UInt8[np.ndarray, "N H W 3"], UInt8[np.ndarray, "N H W 3"], np.ndarray | None], float]


def pretrain(config: Config, out: Path, psnr: Psnr, log: Log) -> dict:
    """Trains `tiny` from nothing and commits it to `out`/model; the same command continues an unfinished training in `out`/work.

    `psnr(result, truth, mask)` in dB is given by the caller. Returns the card."""
    settings = config.pretrain
    train_seeds, held_out_seeds = training_seeds(settings)
    threads = torch.get_num_threads()
    rendered, held_out = (
        render_training_set(seeds, settings, SIZE_PX, out / "work" / "rendered", threads, lambda done, total: log("render", done, total, 0.0))
        for seeds in (train_seeds, held_out_seeds)
    )
    model = tiny_model(config.run.seed, SIZE_PX)
    fit_encoder(model, rendered)
    data = encode_set(model, rendered)
    states = {phase: train_phase(phase, model, data, config, out / "work", log) for phase in ("image", "video", "decoder")}
    card = _card(config, states, train_seeds, held_out_seeds, held_out_scores(model, held_out, psnr))
    with half_precision(model):
        commit_folder(out / "model", model.save, card)
    return card


@torch.no_grad()
def held_out_scores(model: PoseVideoModel, held_out: RenderedSet, psnr: Psnr) -> dict[str, float]:
    """PSNR in dB on unseen performers: the autoencoder alone; on the body, for each pose of the set, frames sampled from noise and
    the warped references that they start from."""
    settings = DiffusionConfig(preset="tiny", sampling_steps=2, guidance_scale=1.0)
    rows = []
    for index in range(len(held_out.seeds)):
        truth, body = held_out.frames[index], held_out.iuv[index, 0, ..., 0] > 0
        row = {"autoencoder_psnr": psnr(model.decode(model.encode(truth)), truth, None)}
        for pose, name in enumerate(POSES):
            references = model.encode_references(ReferencePictures(held_out.warped[index, pose], held_out.background[index, pose]))
            conditions = _conditions(model, held_out, index, pose, references)
            sampled = refine(model.denoiser, model.noise_schedule, conditions, None, 1.0, settings, seed=index)
            row[f"sampled_psnr_body_{name}"] = psnr(model.decode(sampled, references), truth, body)
            row[f"warped_psnr_body_{name}"] = psnr(held_out.warped[index, pose], truth, body)
        rows.append(row)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _conditions(model: PoseVideoModel, held_out: RenderedSet, index: int, pose: int, references: References) -> Conditions:
    resolution = model.denoiser.pose_encoder.resolution
    maps = {
        "keypoints": skeleton_maps(torch.from_numpy(held_out.keypoints[index, pose]).float(), held_out.frames.shape[-2], resolution)[None],
        "iuv": iuv_maps(torch.from_numpy(held_out.iuv[index, pose]), resolution)[None],
    }
    return Conditions(maps, torch.from_numpy(model.embed_image(held_out.frames[index, 0]))[None, None], references.latents)


def _card(config: Config, states: dict[str, TrainingState], seeds: list[int], held_out: list[int], scores: dict[str, float]) -> dict:
    phases = {
        phase: {
            "steps": s.step,
            "seconds": round(s.seconds),
            "loss_first_50": float(np.mean(s.losses[:50])),
            "loss_last_50": float(np.mean(s.losses[-50:])),
        }
        for phase, s in states.items()
        if s.losses
    }
    return {
        "model": "tiny", "size_px": SIZE_PX, "performer_seeds": [seeds[0], seeds[-1]], "held_out_seeds": [held_out[0], held_out[-1]],
        "settings": config.pretrain.model_dump(mode="json"), "seed": config.run.seed, "phases": phases, "held_out_scores_db": scores,
    }  # fmt: skip

"""What is each part of the method worth? The supplement's Table 2 and figures 14 and 16, on people with known truth.

The held-out frames of every performer, at the settings of `dpscale demo`, by five methods: w/o Opt. (one pass from noise), Image Opt. (V_p
itself encoded and refined), Noisy-Image Opt. (noise on the picture), IVR Opt. (the whole method), and the whole method w/o 3DHF. A
performer is finetuned once; the methods share weights, seeds, number and strength of refreshes. The settings were fixed on the demo's two
performers; the rendered ones here are others, whom BlazePose finds in the true frames. Beside the JSON a contact sheet a performer.

Default: the man of pose2sim and one rendered performer, one seed. `--full`: the man, three rendered performers and, where
DPSCALE_REAL_DATA names the footage of docs/method.md, a second filmed man; two seeds. `--folder DIR` keeps the run and goes on with one."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from benchmarks import arguments, finish, show
from dpscale.body.rendered import HELD_OUT_SEED
from dpscale.config.load import load
from dpscale.config.schema import Config
from dpscale.config.sources import VideoConfig
from dpscale.data.checkpoint import write_atomically, write_json
from dpscale.data.layout import RunLayout
from dpscale.data.shards import read_clip
from dpscale.diffusion.weights import load_model
from dpscale.evaluate.study import case_of, study
from dpscale.evaluate.video_files import contact_sheet, write_png
from dpscale.joint.checkpoint import VideoStore
from dpscale.joint.loop import optimise_on_disk
from dpscale.joint.performers import PerformerWeights
from dpscale.joint.refresh import DiffusionRefresh
from dpscale.joint.video import fingerprint, load_task
from jobs.keypoint_detector import detect_keypoints
from jobs.pipeline import run_stages
from jobs.settings import CONFIGS

METHODS: dict[str, dict[str, Any]] = {
    "w/o Opt.": {"method": "none"},
    "Image Opt.": {"method": "image"},
    "Noisy-Image Opt.": {"method": "noisy_image"},
    "IVR Opt.": {},
    "IVR w/o 3DHF": {"flow_weight": 0.0},
}
"""Method -> what it changes in [joint]."""
WHOLE, ABLATED, WITHOUT_FLOW = "IVR Opt.", ("w/o Opt.", "Image Opt.", "Noisy-Image Opt."), "IVR w/o 3DHF"
METRICS = ("psnr", "psnr_body", "ssim", "l1", "warp_error", "keypoint_error_px", "keypoint_detected", "seconds")
PUBLISHED = {
    "w/o Opt.": (28.99, 0.70, 6.09e-5),
    "Image Opt.": (28.17, 0.63, 7.03e-5),
    "Noisy-Image Opt.": (27.35, 0.45, 8.51e-5),
    "IVR Opt.": (30.72, 0.69, 4.33e-5),
}
"""PSNR, SSIM and L1 of the supplement's Table 2: 512 x 512 px, the authors' people and weights (METHOD 7)."""
TIE = {"psnr": 0.1, "l1": 0.01}
"""What counts as equal: dB; part of the smaller L1."""
_RENDERED = ((HELD_OUT_SEED + 11, "dance_b"), (HELD_OUT_SEED + 12, "walk"), (HELD_OUT_SEED + 13, "dance_a"))
"""In every true frame of their held-out parts BlazePose finds them, within 2 px."""
_FILMED = "single_person_demo.mp4"


@dataclass(frozen=True)
class Job:
    """One video by one method with one seed."""

    config: Config
    video: VideoConfig
    method: str
    seed: int

    @property
    def settings(self) -> Config:
        joint = self.config.joint.model_copy(update=METHODS[self.method])
        return self.config.model_copy(update={"joint": joint, "run": self.config.run.model_copy(update={"seed": self.seed})})

    @property
    def folder(self) -> Path:
        name = self.method.lower().replace("/", "").replace(".", "").replace(" ", "_")
        return RunLayout.of(self.config).root / "ablation" / self.video.performer / f"{name}-{self.seed}"

    @property
    def store(self) -> VideoStore:
        return VideoStore(self.folder, fingerprint(self.settings, RunLayout.of(self.config), self.video))


def main() -> None:
    """Finetunes, runs every method, measures."""
    given = arguments(__doc__ or "", folder={"type": Path, "metavar": "DIR", "help": "keeps the run there, or continues it; none: a temporary one"})
    path = given.json or Path("runs/benchmarks/ablation.json")
    with tempfile.TemporaryDirectory(prefix="dpscale-bench-") if given.folder is None else nullcontext(given.folder) as folder:
        config, notes = _config(Path(folder).resolve(), given.full)
        if run_stages(config, ["preprocess", "finetune"]):
            raise RuntimeError("a performer could not be trained: see above")
        for video in config.planned_videos():
            load_task(config, RunLayout.of(config), video)  # decodes the inputs that all methods share
        seeds = (0, 1) if given.full else (0,)
        jobs = [Job(config, video, method, seed) for video in config.planned_videos() for seed in seeds for method in METHODS]
        with multiprocessing.get_context("spawn").Pool(min(len(jobs), os.cpu_count() or 1)) as pool:
            rows = pool.map(run, jobs, chunksize=1)
        for video in config.planned_videos():
            write_atomically(path.with_name(f"{path.stem}-{video.performer}.png"), partial(write_png, picture=_sheet(config, video)))
        floors = {row.pop("performer_floor"): row.pop("floor") for row in rows}
    result = summary(rows)
    _show_table(result)
    finish("ablation", path, {**result, "floor": floors, "notes": notes, "settings": _told(config)}, rows)


def _config(root: Path, full: bool) -> tuple[Config, list[str]]:
    """The demo's settings with this benchmark's performers; what a reader should know of them."""
    config = load(CONFIGS / "demo.toml", [f'run.root="{root}"', "tracking.kind=none", "finetune.max_concurrent=2"])
    people: list[dict[str, Any]] = [next(performer for performer in config.performers if performer.kind == "pose2sim").model_dump()]
    for seed, motion in _RENDERED[: None if full else 1]:
        name = f"rendered-{motion.replace('_', '-')}"
        people.append({"kind": "rendered", "name": name, "performer_seed": seed, "motion": motion, "num_frames": 76})
    notes = ["Frechet distances: not measured, evaluate/ has none (they need networks that are not shipped)"]
    footage = os.environ.get("DPSCALE_REAL_DATA")
    if full and footage:
        people.append({"kind": "video", "name": "basketball", "path": str(Path(footage) / _FILMED)})
    else:
        notes.append(f"without the second filmed man ({_FILMED}): {'DPSCALE_REAL_DATA is not set' if full else 'only with --full'}")
    own = {"performers": people, "drives": [{"kind": "self", "name": "self"}], "videos": []}
    return Config.model_validate(config.model_dump() | own), notes


def run(job: Job) -> dict[str, Any]:
    """Makes and measures one video; what its folder holds already is not made again."""
    torch.set_num_threads(job.config.ray.torch_threads)
    layout, store = RunLayout.of(job.config), job.store
    if not store.has_result():
        started = time.monotonic()
        task, model = load_task(job.settings, layout, job.video), load_model(job.config.diffusion)
        PerformerWeights(model).use(layout.finetune(job.video.performer))
        optimise_on_disk(task, store, DiffusionRefresh(model, task), lambda *_: None)
        write_json(job.folder / "seconds.json", time.monotonic() - started)
    case = case_of(read_clip(layout.shard(job.video.performer, "main")), None)
    measured = study(case, {"made": _made(job)}, job.config.evaluate.body_dilation_px, detect_keypoints)
    values = measured.methods["made"] | {"seconds": json.loads((job.folder / "seconds.json").read_text())}
    row = {"performer": job.video.performer, "seed": job.seed, "method": job.method} | {name: values[name] for name in METRICS}
    return row | {"performer_floor": job.video.performer, "floor": measured.floor}


def _made(job: Job) -> UInt8[np.ndarray, "N H W 3"]:
    with np.load(job.folder / "result" / "frames.npz") as frames:
        return frames["ivr_opt"]


def _sheet(config: Config, video: VideoConfig) -> UInt8[np.ndarray, "A B 3"]:
    """Figures 14 and 16: the same frames by each method, below the truth."""
    case = case_of(read_clip(RunLayout.of(config).shard(video.performer, "main")), None)
    return contact_sheet({"truth": case.truth} | {method: _made(Job(config, video, method, 0)) for method in METHODS})


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over performers and seeds, their spread, and what they say. Spread: standard deviation over performers of their means over
    seeds, and over seeds of one performer (root mean square)."""
    performers = list(dict.fromkeys(row["performer"] for row in rows))
    of = {(m, p): [row for row in rows if (row["method"], row["performer"]) == (m, p)] for m in METHODS for p in performers}
    values = {m: {name: [[row[name] for row in of[m, p]] for p in performers] for name in METRICS} for m in METHODS}
    means = {m: {name: statistics.fmean(statistics.fmean(v) for v in per) for name, per in of.items()} for m, of in values.items()}
    spread = {m: {name: _spread(per) for name, per in of.items()} for m, of in values.items()}

    def best(name: str, tie: float = 0.0) -> bool:
        """Smallest of the first four methods, or within `tie` of it."""
        return means[WHOLE][name] <= min(means[m][name] for m in ABLATED) + tie

    psnr = {m: means[m]["psnr"] for m in (WHOLE, *ABLATED)}
    return {
        "means": means,
        "spread": spread,
        "ivr_best_warp_error": best("warp_error"),
        "ivr_best_or_tied_psnr": psnr[WHOLE] >= max(psnr.values()) - TIE["psnr"],
        "ivr_best_or_tied_l1": best("l1", TIE["l1"] * min(means[m]["l1"] for m in ABLATED)),
        "flow_improves_keypoints": means[WHOLE]["keypoint_error_px"] < means[WITHOUT_FLOW]["keypoint_error_px"],
        "flow_improves_keypoints_of": {
            p: statistics.fmean(values[WHOLE]["keypoint_error_px"][n]) < statistics.fmean(values[WITHOUT_FLOW]["keypoint_error_px"][n])
            for n, p in enumerate(performers)
        },
        "tie": TIE,
    }


def _spread(per_performer: list[list[float]]) -> dict[str, float]:
    seeds = [statistics.pvariance(values) for values in per_performer]
    return {"performers": statistics.pstdev([statistics.fmean(values) for values in per_performer]), "seeds": statistics.fmean(seeds) ** 0.5}


def _show_table(result: dict[str, Any]) -> None:
    """In the form of the supplement's Table 2: ours (mean +- deviation over performers) beside the published."""

    def cell(method: str, name: str, form: str) -> str:
        return f"{result['means'][method][name]:{form}} +-{result['spread'][method][name]['performers']:{form}}"

    forms = {"psnr": ".2f", "psnr_body": ".2f", "ssim": ".3f", "l1": ".2e", "warp_error": ".2f", "keypoint_error_px": ".2f", "seconds": ".0f"}
    rows = []
    for method in METHODS:
        psnr, ssim, l1 = PUBLISHED.get(method, ("", "", ""))
        ours = {name: cell(method, name, form) for name, form in forms.items()}
        rows.append({"method": method, **ours, "paper PSNR": str(psnr), "paper SSIM": str(ssim), "paper L1": str(l1)})
    show("ablation: means over performers (the paper's columns: 512 px, other people)", rows)


def _told(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name).model_dump(mode="json") for name in ("joint", "field", "diffusion")}


if __name__ == "__main__":
    main()

"""Settings of the search for settings. Part of `schema.py`, which exports them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from dpscale.config.section import Section


class GridSearcher(Section):
    """Every combination of the listed values."""

    kind: Literal["grid"] = "grid"


class RandomSearcher(Section):
    """Points drawn from the space; they follow from run.seed and are the same for every video."""

    kind: Literal["random"] = "random"
    num_points: int = Field(default=16, ge=1, le=100_000, description="Points per video.")


class OptunaSearcher(Section):
    """Optuna's multi-objective TPE, quality against cost: a study per video."""

    kind: Literal["optuna"] = "optuna"
    num_points: int = Field(default=16, ge=1, le=100_000, description="Points per video.")


Searcher = Annotated[GridSearcher | RandomSearcher | OptunaSearcher, Field(discriminator="kind")]


class NoStopping(Section):
    """Every trial runs to its end."""

    kind: Literal["none"] = "none"


class HalvingStopping(Section):
    """Successive halving in step: all trials of a video reach a rung before the worse of them stop there."""

    kind: Literal["halving"] = "halving"
    first_rung: float = Field(default=0.125, gt=0, lt=1, description="Part of joint.steps after which trials are compared first.")
    reduction: float = Field(default=3.0, gt=1, le=100, description="Of so many trials one goes on; the next rung is so many times farther.")


class AshaStopping(Section):
    """Ray Tune's asynchronous successive halving, a bracket per video."""

    kind: Literal["asha"] = "asha"
    first_rung: float = Field(default=0.125, gt=0, lt=1, description="Part of joint.steps after which trials are compared first.")
    reduction: float = Field(default=3.0, gt=1, le=100, description="Of so many trials one goes on; the next rung is so many times farther.")


class PopulationStopping(Section):
    """Population-based training of what may change on the way (noise strengths, lambda): no trial stops, but from time to time the worst go on with
    the states of the best, under other settings. The searcher's points are the first population of each video."""

    kind: Literal["pbt"] = "pbt"
    exchange_every: float = Field(default=0.2, gt=0, lt=1, description="Part of joint.steps between exchanges.")
    replaced: float = Field(default=0.25, gt=0, le=0.5, description="Part of the members that give up their own states at an exchange.")
    factor: float = Field(default=1.2, gt=1, le=100, description="A number of a range is multiplied with it or divided by it; of a list a neighbour.")
    drawn_anew: float = Field(default=0.25, ge=0, le=1, description="Probability of a value drawn from the space instead.")


Stopping = Annotated[NoStopping | HalvingStopping | AshaStopping | PopulationStopping, Field(discriminator="kind")]


class ObjectiveConfig(Section):
    """What a trial is judged by: quality = psnr_body - warp_weight * warp_error, on the held-out frames; cost in denoiser calls."""

    warp_weight: float = Field(default=0.1, ge=0, le=1000, description="dB that a grey level of warping error counts for.")
    price_db: float = Field(default=0.1, ge=0, le=100, description="Quality in dB that a doubling of the cost must bring.")
    steps_per_call: float = Field(
        default=20.0, gt=0, le=1e9, description="Field steps that cost as much as one denoiser call; benchmarks.search measures it for a machine."
    )


class SearchConfig(Section):
    """Which settings are tried for every video that has a truth, and how."""

    space: dict[str, Any] = Field(
        default={},
        description="Tables like the config's own: for each setting the values to try, [250, 500], or {min = 0.5, max = 2.0, log = true}.",
    )
    searcher: Searcher = GridSearcher()
    stopping: Stopping = HalvingStopping()
    objective: ObjectiveConfig = ObjectiveConfig()
    max_concurrent: int = Field(default=2, ge=1, le=10_000, description="Trials at once: with trial_cpus and trial_gpus, all that a search takes.")
    trial_cpus: float = Field(default=1.0, gt=0, le=256)
    trial_gpus: float = Field(default=0.0, ge=0, le=8)
    max_failures: int = Field(default=1, ge=0, le=100, description="Retries of a trial before it is reported as failed.")

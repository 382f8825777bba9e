import pytest
import torch

from dpscale.config.model import SamplerConfig
from dpscale.config.schema import DiffusionConfig
from dpscale.diffusion.denoiser import PoseDenoiser
from dpscale.diffusion.refine import Pass, refine, sampling_schedule
from dpscale.diffusion.video_conditions import video_conditions
from dpscale.diffusion.windows import blend, windows
from tests.unit.diffusion.models import CHANNELS, LATENT, random_conditions, small_model

SETTINGS = DiffusionConfig(preset="tiny", sampling_steps=5, guidance_scale=1.0, window=4, stride=2, window_batch=2)


class _Oracle(PoseDenoiser):
    """A denoiser that always knows the clean latents, and counts how often it is asked."""

    def __init__(self, truth):
        torch.nn.Module.__init__(self)
        self.truth, self.windows, self.first = truth, 0, None

    @property
    def latent_channels(self):
        return self.truth.shape[1]

    def encode_pose(self, pose_maps):
        return next(iter(pose_maps.values()))[:, :, :8, ::4, ::4].transpose(1, 2)

    def forward(self, noisy, timestep, conditions):
        self.first = noisy.clone() if self.first is None else self.first
        self.windows += len(noisy)
        mean = self.truth.mean(0)[None, :, None]
        return mean.expand_as(noisy)


@pytest.fixture(scope="module")
def schedule():
    return small_model().noise_schedule


def test_it_arrives_where_the_denoiser_points(schedule):
    oracle = _Oracle(torch.randn(7, CHANNELS, LATENT, LATENT))
    made = refine(oracle, schedule, random_conditions(1, 7), None, 1.0, SETTINGS, seed=3)
    assert torch.allclose(made, oracle.truth.mean(0).expand(7, -1, -1, -1), atol=1e-4)
    assert oracle.windows == 5 * 3


def test_strength_decides_the_number_of_steps_and_how_much_guidance_remains(schedule):
    guidance = torch.randn(7, CHANNELS, LATENT, LATENT)
    weak, strong = _Oracle(guidance), _Oracle(guidance)
    refine(weak, schedule, random_conditions(1, 7), guidance, 1 / 3, SETTINGS, seed=3)
    refine(strong, schedule, random_conditions(1, 7), guidance, 1.0, SETTINGS, seed=3)
    assert (weak.windows, strong.windows) == (2 * 3, 5 * 3)
    clean = guidance[:4].transpose(0, 1)[None]
    assert (weak.first[:1] - clean).square().mean() < 0.6 * (strong.first[:1] - clean).square().mean()


def test_a_seed_decides_the_result(schedule):
    model, conditions = small_model().denoiser, random_conditions(1, 5)
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.1)
    first, again, other = (refine(model, schedule, conditions, None, 1.0, SETTINGS, seed=s) for s in (1, 1, 2))
    assert first.shape == (5, CHANNELS, LATENT, LATENT)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_guidance_scale_one_equals_no_guidance_and_others_do_not(schedule):
    model, conditions = small_model().denoiser, random_conditions(1, 4)
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.1)
    made = {
        scale: refine(model, schedule, conditions, None, 1.0, SETTINGS.model_copy(update={"guidance_scale": scale}), seed=1)
        for scale in (1.0, 1.0 + 1e-9, 6.0)
    }
    assert torch.allclose(made[1.0], made[1.0 + 1e-9], atol=1e-5)
    assert not torch.allclose(made[1.0], made[6.0], atol=1e-3)


def test_a_strength_that_divides_evenly_runs_the_last_steps_of_the_whole_schedule(schedule):
    whole, part = sampling_schedule(schedule, 50, 1.0), sampling_schedule(schedule, 50, 0.3)
    assert whole.timesteps[0] == 999
    assert torch.equal(part.timesteps, whole.timesteps[-15:])
    noisy, prediction = torch.randn(2, 1, CHANNELS, 3, LATENT, LATENT).unbind(0)
    for step in part.timesteps:
        a, b = (s.step(prediction, step, noisy, eta=0.0, return_dict=False)[0] for s in (whole, part))
        assert torch.equal(a, b)


@pytest.mark.parametrize(("steps", "strength", "starts"), [(2, 0.7, 699), (2, 0.3, 299), (2, 0.01, 9), (7, 0.5, 499), (1, 1.0, 999)])
def test_with_few_steps_the_start_stays_where_the_strength_puts_it(schedule, steps, strength, starts):
    part = sampling_schedule(schedule, steps, strength)
    assert abs(int(part.timesteps[0]) - starts) <= 2
    prediction, noisy = torch.randn(2, 1, CHANNELS, 3, LATENT, LATENT).unbind(0)
    if schedule.config.prediction_type == "sample":
        last = part.step(prediction, part.timesteps[-1], noisy, eta=0.0, return_dict=False)[0]
        assert torch.allclose(last, prediction, atol=1e-5), "no noise is left"


@pytest.mark.parametrize("window_batch", [1, 2, 5, 8])
@torch.no_grad()
def test_both_halves_of_guidance_in_one_call_equal_two_calls(schedule, window_batch):
    """Batches of another size may take other kernels: 1e-5 on latents of about 4, some units in their last place, times the guidance."""
    model, conditions = small_model().denoiser, random_conditions(1, 9)
    settings = SETTINGS.model_copy(update={"guidance_scale": 6.0, "window_batch": window_batch})
    given, where = [], windows(9, settings.window, settings.stride)
    model.register_forward_hook(lambda module, inputs, output: given.append(len(inputs[0])))
    made = refine(model, schedule, conditions, None, 1.0, settings, seed=1)
    assert max(given) == max(2, window_batch // 2 * 2) or max(given) == 2 * len(where)
    told = video_conditions(model, conditions, settings)
    steps = sampling_schedule(schedule, settings.sampling_steps, 1.0)
    latents = torch.randn((1, CHANNELS, 9, LATENT, LATENT), generator=torch.Generator().manual_seed(1))[0]
    for timestep in steps.timesteps:
        parts = []
        for window in where:
            clip = told.at([window], guided=False)
            conditional, unconditional = (model(latents[None, :, window], timestep[None], c)[0] for c in (clip, clip.without_identity()))
            parts.append(unconditional + 6.0 * (conditional - unconditional))
        latents = steps.step(blend(parts, where, 9), timestep, latents, eta=0.0, return_dict=False)[0]
    torch.testing.assert_close(made, latents.transpose(0, 1), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["ddim", "dpmpp_2m", "unipc"])
def test_it_can_be_stopped_between_any_two_calls_and_goes_on(schedule, kind):
    model, settings = small_model().denoiser, SETTINGS.model_copy(update={"sampler": SamplerConfig(kind=kind)})
    told, guidance = video_conditions(model, random_conditions(1, 9), settings), torch.randn(9, CHANNELS, LATENT, LATENT)
    whole = Pass.of(model, schedule, told, 0.6, settings)
    straight, calls = whole.start([guidance], 5), []
    assert whole.run(straight, calls.append)
    stopped = whole.start(guidance.split(2), 5)
    for _ in range(len(calls) - 1):
        turns = iter((False, True))
        assert not whole.run(stopped, should_stop=lambda turns=turns: next(turns))
    assert whole.run(stopped)
    assert torch.equal(stopped.latents, straight.latents)


def test_each_sampler_arrives_where_the_denoiser_points(schedule):
    for kind in ("ddim", "dpmpp_2m", "unipc"):
        oracle = _Oracle(torch.randn(7, CHANNELS, LATENT, LATENT))
        settings = SETTINGS.model_copy(update={"sampler": SamplerConfig(kind=kind)})
        made = refine(oracle, schedule, random_conditions(1, 7), torch.randn(7, CHANNELS, LATENT, LATENT), 0.6, settings, seed=3)
        assert torch.allclose(made, oracle.truth.mean(0).expand(7, -1, -1, -1), atol=1e-4)

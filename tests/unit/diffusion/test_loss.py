import pytest
import torch
from diffusers import DDIMScheduler

from dpscale.diffusion.loss import diffusion_loss

LATENTS = torch.randn(3, 4, 2, 5, 5, generator=torch.Generator().manual_seed(0))


def _schedule(prediction_type):
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type)


def _target(kind, schedule, noisy, timestep):
    """What a perfect model, which knows the clean latents, answers."""
    alpha = schedule.alphas_cumprod[timestep][:, None, None, None, None]
    noise = (noisy - alpha.sqrt() * LATENTS) / (1 - alpha).sqrt()
    return {"epsilon": noise, "sample": LATENTS, "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * LATENTS}[kind]


@pytest.mark.parametrize(("norm", "power"), [("l2", 2), ("l1", 1)])
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_a_perfect_model_has_no_loss_and_an_error_counts_by_its_norm(kind, norm, power):
    schedule = _schedule(kind)
    for error in (0.0, -0.5):
        model = lambda noisy, t, _, error=error: _target(kind, schedule, noisy, t) + error  # noqa: E731
        loss = diffusion_loss(model, schedule, LATENTS, None, torch.Generator().manual_seed(1), norm=norm)
        assert float(loss) == pytest.approx(abs(error) ** power, abs=1e-4)


def test_weights_are_normalised():
    schedule = _schedule("sample")
    wrong = torch.zeros_like(LATENTS)
    wrong[:, :, 0] = 1.0
    weight = torch.ones(3, 1, 2, 5, 5)
    weight[:, :, 0] = 3.0
    loss = diffusion_loss(lambda *_: LATENTS + wrong, schedule, LATENTS, None, torch.Generator().manual_seed(1), weight)
    assert float(loss) == pytest.approx(0.75, abs=1e-6)

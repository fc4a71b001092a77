"""The alpha-bar table of each accepted scheduler against diffusers' own; VAE statistics against its decoder."""

import json
import math
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL

from smpo.core.errors import ConfigError
from smpo.maths.betas import cosine_alphas_cumprod, linear_alphas_cumprod
from smpo.maths.path import DiffusionPath, EpsilonPath, VPath
from smpo.models.folders import Part
from smpo.models.parts import posterior_moments
from smpo.models.schedules import (
    DESCRIBED_BY_BETAS,
    NEUTRAL,
    READ,
    SAMPLING_ONLY,
    check_timesteps,
    path_of,
    training_schedule,
)
from tests.tiny_pipelines import vae

KINDS: dict[str, dict[str, Any]] = {
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2"},
    "trained_betas": {"trained_betas": [0.0001 + 0.02 * i / 300 for i in range(300)], "num_train_timesteps": 300},
    "500": {"beta_schedule": "scaled_linear", "num_train_timesteps": 500},
    "defaults of the class": {},
}


def path_of_config(folder: Path, class_name: str, config: dict[str, Any]) -> DiffusionPath:
    folder = folder / "scheduler"
    folder.mkdir(exist_ok=True)
    (folder / "scheduler_config.json").write_text(json.dumps(config))
    return path_of(training_schedule(Part(folder), class_name))


@pytest.mark.parametrize("kind", KINDS)
def test_tables_equal_diffusers(kind: str, tmp_path: Path) -> None:
    """To 1e-6: diffusers multiplies in float32."""
    for class_name in DESCRIBED_BY_BETAS:
        scheduler = getattr(diffusers, class_name)
        table = path_of_config(tmp_path, class_name, KINDS[kind]).alphas_cumprod
        assert table.dtype == torch.float64
        assert (table - scheduler(**KINDS[kind]).alphas_cumprod).abs().max() < 1e-6, class_name


def test_configs_as_diffusers_saves_them_are_read(tmp_path: Path) -> None:
    """With every key of its class, minus infinity for DPM-Solver's lambda among them."""
    for class_name in DESCRIBED_BY_BETAS:
        scheduler = getattr(diffusers, class_name)(beta_schedule="linear")
        scheduler.save_pretrained(tmp_path / "scheduler")
        schedule = training_schedule(Part(tmp_path / "scheduler"), class_name)
        assert (path_of(schedule).alphas_cumprod - scheduler.alphas_cumprod).abs().max() < 1e-6


def test_hand_worked_tables() -> None:
    """linear .1, .2, .3: .9, .72, .504. Cosine, T = 2: f(1/2) / f(0) with f(u) = cos^2(pi/2 (u + .008) / 1.008)."""
    assert linear_alphas_cumprod(3, beta_start=0.1, beta_end=0.3).tolist() == pytest.approx([0.9, 0.72, 0.504])
    first = (math.cos(0.508 / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    assert cosine_alphas_cumprod(2).tolist() == pytest.approx([first, first * 0.001])


def test_v_prediction_and_zero_terminal_snr_are_read(tmp_path: Path) -> None:
    """As SD2.1's and NoobAI-XL's folders have them; the rescaled table is diffusers' but for its rounding."""
    config = {**KINDS["scaled_linear"], "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    path = path_of_config(tmp_path, "DDIMScheduler", config)
    assert isinstance(path, VPath) and path.alphas_cumprod[-1] == 0
    assert (path.alphas_cumprod - diffusers.DDIMScheduler(**config).alphas_cumprod).abs().max() < 1e-6
    plain = path_of_config(tmp_path, "PNDMScheduler", {**config, "rescale_betas_zero_snr": False})
    assert isinstance(plain, VPath) and plain.alphas_cumprod[-1] > 0.004


@pytest.mark.parametrize(("class_name", "config", "message"), [
    ("DDIMScheduler", {"rescale_betas_zero_snr": True}, "needs prediction_type v_prediction, got epsilon"),
    ("PNDMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
     "rescale_betas_zero_snr is true, and a PNDMScheduler does not know it"),
    ("DDIMScheduler", {"prediction_type": "sample"}, "is 'sample', and must be epsilon or v_prediction"),
])
def test_schedules_that_cannot_be_trained_are_refused(
    class_name: str, config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        path_of_config(tmp_path, class_name, config)


def test_every_key_of_a_scheduler_is_read_harmless_or_refused() -> None:
    lists = (READ, SAMPLING_ONLY, tuple(NEUTRAL))
    names = [name for part in lists for name in part]
    assert len(names) == len(set(names))


def test_the_timesteps_asked_for_must_be_there() -> None:
    path = EpsilonPath(linear_alphas_cumprod(500, beta_start=1e-4, beta_end=0.02))
    check_timesteps(path, 499)
    with pytest.raises(ConfigError) as error:
        check_timesteps(path, 999)
    assert str(error.value) == (
        "training.max_timestep must be less than the 500 timesteps of the model's scheduler, got 999; set it to 499 or "
        "less"
    )


def test_statistics_of_a_vae_are_undone_as_sdxls_pipeline_does() -> None:
    """decode takes latents * latents_std / scaling_factor + latents_mean (pipeline_stable_diffusion_xl.py)."""
    torch.manual_seed(0)
    plain = vae().eval()
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, std = [0.5, -1.0, 2.0, 0.0], [0.5, 1.0, 2.0, 4.0]
    config = {key: value for key, value in plain.config.items() if key != "_use_default_values"}
    network = AutoencoderKL.from_config({**config, "latents_mean": mean, "latents_std": std}).eval()
    network.load_state_dict(plain.state_dict())
    latents, deviation = posterior_moments(network, images)
    with torch.no_grad():
        posterior = network.encode(images).latent_dist
    means, stds = (torch.tensor(values).view(1, 4, 1, 1) for values in (mean, std))
    assert torch.allclose(latents * stds / network.config.scaling_factor + means, posterior.mean, atol=1e-6)
    assert torch.allclose(deviation * stds / network.config.scaling_factor, posterior.std, atol=1e-6)
    unscaled, _ = posterior_moments(plain, images)
    assert torch.equal(unscaled, posterior.mean * 0.5) and not torch.allclose(unscaled, latents, atol=0.1)

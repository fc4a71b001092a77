"""Seam 4 against diffusers itself, on random pipelines read from disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from smpo.core.errors import ConfigError
from smpo.core.records import Conditioning
from smpo.maths.inversion import inversion_levels, invert
from smpo.models import FAMILIES, parts
from smpo.models.sd import StableDiffusion
from smpo.models.sdxl import StableDiffusionXL
from tests.maths.references import draw

CPU = torch.device("cpu")
PROMPTS = ("a red cat", "", "a prompt that is far longer than the sixteen tokens of the tokenizer")
SIZES = torch.tensor([[32, 48, 0, 8, 32, 32], [64, 64, 4, 0, 32, 32], [32, 32, 0, 0, 32, 32]])
TIMESTEPS = torch.tensor([0, 400, 999])


@pytest.fixture
def editable(random_sd: Path, tmp_path: Path) -> Path:
    """A copy of the pipeline that a test may damage."""
    return shutil.copytree(random_sd, tmp_path / "copy")


def latents(n: int = 3, seed: int = 0) -> torch.Tensor:
    return draw(n, 4, 8, 8, seed=seed, dtype=torch.float32)


def conditioned(family: StableDiffusion) -> Conditioning:
    return family.condition(family.encode_prompts(PROMPTS, CPU), SIZES)


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


# --- prediction ---

def test_noise_prediction_is_the_plain_unet_call(random_sd: Path) -> None:
    family = StableDiffusion(source=str(random_sd))
    unet, given = family.load_denoiser(), conditioned(family)
    with torch.no_grad():
        expected = unet(latents(), TIMESTEPS, encoder_hidden_states=given.tensors["hidden"]).sample
        assert torch.equal(family.predict(unet, latents(), TIMESTEPS, given), expected)


def test_sdxl_prediction_is_the_plain_unet_call(random_sdxl: Path) -> None:
    family = StableDiffusionXL(source=str(random_sdxl))
    unet, encoded = family.load_denoiser(), family.encode_prompts(PROMPTS, CPU)
    added = {"text_embeds": encoded["pooled"], "time_ids": SIZES.float()}
    with torch.no_grad():
        expected = unet(
            latents(), TIMESTEPS, encoder_hidden_states=encoded["hidden"], added_cond_kwargs=added).sample
        assert torch.equal(family.predict(unet, latents(), TIMESTEPS, family.condition(encoded, SIZES)), expected)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_predictions_of_a_batch_equal_its_rows_alone(name: str, request: pytest.FixtureRequest) -> None:
    family = FAMILIES.build({"name": name, "source": str(request.getfixturevalue(f"random_{name}"))})
    unet, given = family.load_denoiser(), conditioned(family)
    with torch.no_grad():
        together = family.predict(unet, latents(), TIMESTEPS, given)
        for i in range(3):
            row = torch.tensor([i])
            alone = family.predict(unet, latents()[row], TIMESTEPS[row], given.rows(row))
            assert torch.allclose(alone, together[row], atol=1e-5)


def test_prediction_depends_on_prompt_and_timestep_and_on_sizes_in_sdxl(random_sdxl: Path) -> None:
    family = StableDiffusionXL(source=str(random_sdxl))
    unet, encoded, x = family.load_denoiser(), family.encode_prompts(PROMPTS, CPU), latents()

    @torch.no_grad()
    def predict(timesteps: torch.Tensor, encoded: dict, sizes: torch.Tensor) -> torch.Tensor:
        return family.predict(unet, x, timesteps, family.condition(encoded, sizes))

    base = predict(TIMESTEPS, encoded, SIZES)
    rolled = {name: tensor.roll(1, 0) for name, tensor in encoded.items()}
    for other in (predict(TIMESTEPS.roll(1), encoded, SIZES), predict(TIMESTEPS, rolled, SIZES),
                  predict(TIMESTEPS, encoded, SIZES.roll(1, 0))):
        assert (other - base).abs().max() > 1e-5


# --- prompts and sizes ---

def test_prompts_are_encoded_as_the_sd_pipeline_does(random_sd: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(random_sd, safety_checker=None)
    expected, _ = pipeline.encode_prompt(list(PROMPTS), CPU, 1, do_classifier_free_guidance=False)
    encoded = StableDiffusion(source=str(random_sd)).encode_prompts(PROMPTS, CPU)
    assert list(encoded) == ["hidden"] and torch.allclose(encoded["hidden"], expected, atol=1e-6)


def test_prompts_are_encoded_as_the_sdxl_pipeline_does(random_sdxl: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(random_sdxl)
    hidden, _, pooled, _ = pipeline.encode_prompt(list(PROMPTS), device=CPU, do_classifier_free_guidance=False)
    encoded = StableDiffusionXL(source=str(random_sdxl)).encode_prompts(PROMPTS, CPU)
    assert torch.allclose(encoded["hidden"], hidden, atol=1e-6)
    assert torch.allclose(encoded["pooled"], pooled, atol=1e-6)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_prompts_alone_are_encoded_as_in_a_batch(name: str, request: pytest.FixtureRequest) -> None:
    family = FAMILIES.build({"name": name, "source": str(request.getfixturevalue(f"random_{name}"))})
    together = family.encode_prompts(PROMPTS, CPU)
    alone = [family.encode_prompts([prompt], CPU) for prompt in PROMPTS]
    for key, tensor in together.items():
        assert torch.allclose(torch.cat([one[key] for one in alone]), tensor, atol=1e-5)
        assert tensor.dtype == torch.float32


def test_sdxl_time_ids_have_the_order_of_the_pipeline(random_sdxl: Path) -> None:
    """sizes: original h, w, crop top, left, target h, w."""
    pipeline, sizes = DiffusionPipeline.from_pretrained(random_sdxl), (40, 48, 3, 5, 32, 36)
    family = StableDiffusionXL(source=str(random_sdxl))
    given = family.condition(family.encode_prompts(["a"], CPU), torch.tensor([sizes]))
    expected = pipeline._get_add_time_ids(
        sizes[:2], sizes[2:4], sizes[4:], torch.float32, pipeline.text_encoder_2.config.projection_dim)
    assert torch.equal(given.tensors["time_ids"], expected)


# --- loading and saving ---

def test_unet_loads_from_pipeline_and_from_its_own_folder(random_sd: Path) -> None:
    family = StableDiffusion(source=str(random_sd))
    assert same_weights(family.load_denoiser(), family.load_denoiser(str(random_sd / "unet")))
    assert same_weights(family.load_denoiser(), DiffusionPipeline.from_pretrained(random_sd, safety_checker=None).unet)
    assert family.load_denoiser(dtype=torch.bfloat16).dtype == torch.bfloat16


def test_package_data_is_a_source(random_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_package"
    shutil.copytree(random_sd, package / "weights" / "sd")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    family = StableDiffusion(source="package://some_package/weights/sd")
    assert same_weights(family.load_denoiser(), StableDiffusion(source=str(random_sd)).load_denoiser())
    assert family.path.num_levels == 1000


def test_saved_pipeline_opens_in_plain_diffusers_bit_equal(random_sd: Path, tmp_path: Path) -> None:
    family = StableDiffusion(source=str(random_sd))
    unet = family.load_denoiser()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.01)
    family.save_pipeline(unet, tmp_path / "out")
    saved, original = (DiffusionPipeline.from_pretrained(p, safety_checker=None) for p in (tmp_path / "out", random_sd))
    assert same_weights(saved.unet, unet) and not same_weights(saved.unet, original.unet)
    assert same_weights(saved.vae, original.vae) and same_weights(saved.text_encoder, original.text_encoder)
    assert dict(saved.scheduler.config) == dict(original.scheduler.config)
    assert saved.tokenizer(list(PROMPTS)).input_ids == original.tokenizer(list(PROMPTS)).input_ids


def test_saved_sdxl_pipeline_opens_in_plain_diffusers(random_sdxl: Path, tmp_path: Path) -> None:
    family = StableDiffusionXL(source=str(random_sdxl))
    unet = family.load_denoiser()
    family.save_pipeline(unet, tmp_path / "out")
    saved = DiffusionPipeline.from_pretrained(tmp_path / "out")
    assert same_weights(saved.unet, unet) and saved.config.force_zeros_for_empty_prompt


def test_latent_moments_are_scaled(random_sd: Path) -> None:
    """Mean and standard deviation of the VAE's posterior, times scaling_factor = 0.5."""
    vae = StableDiffusion(source=str(random_sd)).load_vae()
    images = draw(2, 3, 32, 32, dtype=torch.float32).clamp(-1, 1)
    mean, std = parts.posterior_moments(vae, images)
    with torch.no_grad():
        mean_raw, log_variance = vae.quant_conv(vae.encoder(images)).chunk(2, dim=1)
    assert not vae.training and mean.shape == (2, 4, 8, 8)
    assert torch.allclose(mean, 0.5 * mean_raw, atol=1e-6)
    assert torch.allclose(std, 0.5 * (log_variance.clamp(-30, 20) / 2).exp(), atol=1e-6)


def test_latents_that_are_not_finite_are_an_error(random_sd: Path) -> None:
    vae = StableDiffusion(source=str(random_sd)).load_vae()
    with pytest.raises(ValueError) as error:
        parts.posterior_moments(vae, torch.full((1, 3, 32, 32), float("nan")))
    assert str(error.value) == "the VAE gave non-finite latents in torch.float32; set cache.vae_dtype=float32"


# --- schedules and errors ---

@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_table_equals_the_published_schedulers(name: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(f"random_{name}")
    table = FAMILIES.build({"name": name, "source": str(source)}).path.alphas_cumprod
    expected = DDIMScheduler.from_pretrained(source, subfolder="scheduler").alphas_cumprod
    assert table.dtype == torch.float64 and (table - expected).abs().max() < 1e-6


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize(("part", "load"), [
    ("unet", lambda family: family.load_denoiser()), ("vae", lambda family: family.load_vae()),
    ("tokenizer", lambda family: family.encode_prompts(["a"], CPU)),
    ("text_encoder", lambda family: family.encode_prompts(["a"], CPU)),
    ("scheduler", lambda family: family.path),
])
def test_missing_parts_are_one_line_errors(editable: Path, part: str, load: Callable) -> None:
    """transformers 5 makes an empty tokenizer, every prompt of which is equal, where the folder is missing."""
    shutil.rmtree(editable / part)
    message = error_of(lambda: load(StableDiffusion(source=str(editable))))
    assert message == (
        f"model: cannot load '{editable.name}' of {editable.parent} (model_index.json names {part}, and there is no "
        "such folder); give a diffusers pipeline folder or hub id"
    )


@pytest.mark.parametrize(("source", "message"), [
    ("package://no_such_package/x", "package://no_such_package/x: no package 'no_such_package' is installed; "
                                    "correct the source"),
    ("package://smpo/no/folder", "package://smpo/no/folder: {smpo}/no/folder does not exist; "
                                 "correct the source or reinstall smpo"),
])
def test_missing_package_data_is_a_one_line_error(source: str, message: str) -> None:
    smpo = Path(parts.__file__).parents[1]
    assert error_of(lambda: StableDiffusion(source=source).load_denoiser()) == message.format(smpo=smpo)


# --- inversion by the family, undone by diffusers ---

def test_diffusers_ddim_undoes_an_inversion(random_sd: Path) -> None:
    """Levels 1, 101, ..., 501 by our inversion (target labels), then DDIMScheduler.step with the stored predictions.

    The scheduler's table is float32 and the way back divides by sqrt(abar_501) = 0.52.
    """
    family = StableDiffusion(source=str(random_sd))
    unet, given, stored = family.load_denoiser(), conditioned(family), []

    def predict(x: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        stored.append((labels[0].item(), family.predict(unet, x, labels, given.rows(rows))))
        return stored[-1][1]

    levels = torch.arange(1, 502, 100).repeat(3, 1)
    with torch.no_grad():
        x = invert(predict, latents(), levels, path=family.path, labels="target")
    scheduler = DDIMScheduler.from_pretrained(random_sd, subfolder="scheduler")
    scheduler.set_timesteps(10)
    assert (x - latents()).abs().max() > 0.3
    for label, noise in reversed(stored):
        x = scheduler.step(noise, label, x, eta=0.0).prev_sample
    assert torch.allclose(x, latents(), atol=2e-5)


def test_inversion_by_a_real_unet_treats_every_row_alone(random_sd: Path) -> None:
    family = StableDiffusion(source=str(random_sd))
    unet, given, t = family.load_denoiser(), conditioned(family), torch.tensor([3, 250, 999])

    @torch.no_grad()
    def inverted(rows: torch.Tensor) -> torch.Tensor:
        kept = given.rows(rows)
        levels = inversion_levels(t[rows], num_steps=4, grid="fixed_stride")
        return invert(
            lambda x, labels, i: family.predict(unet, x, labels, kept.rows(i)), latents()[rows], levels,
            path=family.path, refine="final")

    together = inverted(torch.arange(3))
    assert torch.allclose(torch.cat([inverted(torch.tensor([i])) for i in range(3)]), together, atol=1e-4)

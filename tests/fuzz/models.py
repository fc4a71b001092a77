"""Model folders that lack something, hold too much, or mean something else than they look; `smpo cache` has to notice.

Everything here can be known before any work, so the first stage that opens a model must refuse it by name; what is
accepted must give the latents, prompts and trained weights of the undamaged folder, bit for bit.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.fuzz.case import Accepted, Case, Either, Made, Refused
from tests.fuzz.model_damage import (
    HEADER,
    LFS,
    META,
    NEW,
    SAME,
    WEIGHTS,
    Change,
    Tensors,
    bytes_of,
    json_of,
    model_case,
    tensors_of,
    without,
)
from tests.fuzz.running import Result
from tests.fuzz.world import World


def fixed() -> list[Case]:
    """All of them."""
    return [
        *_weights(),
        *_files(),
        *_unets(),
        *_vaes(),
        *_schedules(),
        *_tokenizers(),
        *_indices(),
    ]


def _set(tensors: Tensors, value: float) -> Tensors:
    name = sorted(tensors)[0]
    changed = tensors[name].clone()
    changed.view(-1)[0] = value
    return {**tensors, name: changed}


def _weights() -> Iterator[Case]:
    """What each part's tensors may suffer."""
    changes: dict[str, Callable[[Tensors], Tensors]] = {
        "lacks two tensors": lambda t: dict(sorted(t.items())[2:]),
        "lacks its last tensor": lambda t: dict(sorted(t.items())[:-1]),
        "lacks every bias": lambda t: {k: v for k, v in t.items() if not k.endswith("bias")},
        "has other prefixes": lambda t: {f"other.{k}": v for k, v in t.items()},
        "has a tensor too many": lambda t: {**t, "nobody.weight": torch.zeros(3)},
        "has tensors of another model": lambda t: {"a": torch.zeros(2)},
        "has no tensor": lambda t: {},
        "has NaN": lambda t: _set(t, float("nan")),
        "has infinity": lambda t: _set(t, float("inf")),
        "has a cut tensor": lambda t: {**t, sorted(t)[0]: t[sorted(t)[0]][:-1]},
        "has a turned tensor": lambda t: {**t, _square(t): t[_square(t)].T.contiguous().reshape(-1)},
        "has integers": lambda t: {k: (v * 100).to(torch.int8) for k, v in t.items()},
        "has a name twice spelt": lambda t: {**t, sorted(t)[0] + " ": t[sorted(t)[0]]},
        "has DDP's module. prefix": lambda t: {f"module.{k}": v for k, v in t.items()},
        "has compiled _orig_mod. prefix": lambda t: {f"_orig_mod.{k}": v for k, v in t.items()},
    }
    for part in WEIGHTS:
        for name, change in changes.items():
            yield model_case(
                f"{part} {name}",
                tensors_of(part, change),
                Refused((part,)),
                url=NEW if part == "text_encoder" else META,
            )
    yield model_case(
        "text_encoder_2 lacks its projection",
        tensors_of("text_encoder_2", lambda t: {k: v for k, v in t.items() if "projection" not in k}),
        Refused(("text_encoder_2",)),
        family="sdxl",
        url=NEW,
    )
    yield model_case(
        "text_encoder_2 lacks two tensors",
        tensors_of("text_encoder_2", lambda t: dict(sorted(t.items())[2:])),
        Refused(("text_encoder_2",)),
        family="sdxl",
        url=NEW,
    )
    yield model_case(
        "text_encoder has position_ids",
        tensors_of("text_encoder", lambda t: {**t, "text_model.embeddings.position_ids": torch.arange(16)[None]}),
        SAME,
        train=True,
    )
    yield model_case(
        "text_encoder without text_model. in its names",
        tensors_of("text_encoder", lambda t: {k.removeprefix("text_model."): v for k, v in t.items()}),
        SAME,
        train=True,
    )
    yield model_case(
        "text_encoder with text_model. in its names",
        tensors_of("text_encoder", lambda t: {"text_model." + k.removeprefix("text_model."): v for k, v in t.items()}),
        SAME,
        train=True,
    )


def _square(tensors: Tensors) -> str:
    return next(name for name in sorted(tensors) if tensors[name].ndim == 2)


def _files() -> Iterator[Case]:
    """What any file of a part may suffer."""
    for part, weights in WEIGHTS.items():
        damages: dict[str, Change] = {
            "weights empty": bytes_of(f"{part}/{weights}", b""),
            "weights a pointer": bytes_of(f"{part}/{weights}", LFS),
            "weights HTML": bytes_of(f"{part}/{weights}", b"<html>404</html>"),
            "weights halved": bytes_of(f"{part}/{weights}", lambda data: data[: len(data) // 2]),
            "weights a byte short": bytes_of(f"{part}/{weights}", lambda data: data[:-1]),
            "weights a byte long": bytes_of(f"{part}/{weights}", lambda data: data + b"x"),
            "header of zeros": bytes_of(f"{part}/{weights}", lambda data: bytes(64) + data[64:]),
            "weights gone": without(f"{part}/{weights}"),
            "config gone": without(f"{part}/config.json"),
            "config empty": bytes_of(f"{part}/config.json", b""),
            "config cut": bytes_of(f"{part}/config.json", lambda data: data[:-20]),
            "config a list": bytes_of(f"{part}/config.json", b"[]"),
            "config binary": bytes_of(f"{part}/config.json", b"\xff\x00"),
            "config null": bytes_of(f"{part}/config.json", b"null"),
            "config deep": bytes_of(f"{part}/config.json", b"[" * 9000),
            "folder gone": without(part),
            "config empty object": bytes_of(f"{part}/config.json", b"{}"),
        }
        for name, change in damages.items():
            named = Refused(((part, part.replace("_", " ")),))
            yield model_case(f"{part} {name}", change, named, url=HEADER if "pointer" in name else "")


def _unets() -> Iterator[Case]:
    for key, value in {
        "in_channels": 9,
        "out_channels": 8,
        "cross_attention_dim": 24,
        "addition_embed_type": "text_time",
        "class_embed_type": "timestep",
        "time_cond_proj_dim": 8,
        "encoder_hid_dim": 8,
        "down_block_types": ["Nope"],
        "block_out_channels": [8],
        "layers_per_block": 2,
        "attention_head_dim": 3,
        "norm_num_groups": 3,
        "in_channels ": "4",
        "act_fn": "nope",
        "num_class_embeds": 4,
    }.items():
        yield model_case(
            f"unet {key.strip()}={value!r}",
            json_of("unet/config.json", **{key.strip(): value}),
            Refused((("unet", "in_channels", "inpainting"),)),
        )
    for kind in (
        "FluxTransformer2DModel",
        "UNet3DConditionModel",
        "SD3Transformer2DModel",
        "os.system",
        "ControlNetModel",
    ):
        yield model_case(f"unet of class {kind}", json_of("unet/config.json", _class_name=kind), Refused(("unet",)))
    yield model_case(
        "unet of an inpainting model",
        lambda folder: _widened(folder, 9),
        Refused((("in_channels", "inpaint", "unet"),)),
    )
    yield model_case(
        "unet of an instruction model", lambda folder: _widened(folder, 8), Refused((("in_channels", "unet"),))
    )


def _widened(folder: Path, channels: int) -> None:
    json_of("unet/config.json", in_channels=channels)(folder)
    tensors_of("unet", lambda t: {**t, "conv_in.weight": t["conv_in.weight"].repeat(1, 3, 1, 1)[:, :channels]})(folder)


def _vaes() -> Iterator[Case]:
    for key, value in {
        "latent_channels": 16,
        "in_channels": 1,
        "block_out_channels": [8, 8],
        "use_quant_conv": False,
        "norm_num_groups": 3,
        "layers_per_block": 2,
        "scaling_factor": 0.0,
        "latents_mean": [0.0],
        "latents_std": [0.0] * 4,
        "down_block_types": ["Nope"] * 3,
        "shift_factor": "x",
    }.items():
        yield model_case(f"vae {key}={value!r}", json_of("vae/config.json", **{key: value}), Refused((("vae", key),)))
    for kind in ("AutoencoderTiny", "VQModel", "AutoencoderKLWan", "AsymmetricAutoencoderKL"):
        yield model_case(f"vae of class {kind}", json_of("vae/config.json", _class_name=kind), Refused(("vae",)))
    # StableDiffusionPipeline decodes without shift and statistics, StableDiffusionXLPipeline with the statistics alone
    yield model_case("vae with a shift", json_of("vae/config.json", shift_factor=0.25), Refused(("shift_factor",)))
    statistics = {"latents_mean": [0.5] * 4, "latents_std": [2.0] * 4}
    yield model_case("vae with statistics", json_of("vae/config.json", **statistics), Refused(("latents_mean",)))
    yield Case("model sdxl vae with statistics", _with_statistics(statistics), Accepted(_means_moved), limit_s=30)


def _with_statistics(statistics: dict[str, Any]) -> Callable[[Path, World], list[list[str]]]:
    def make(cwd: Path, world: World) -> list[list[str]]:
        world.copy_of_finished(cwd)
        json_of("vae/config.json", **statistics)(world.copy_of_model(cwd / "model", family="sdxl"))
        sources = {"old-cache": world.sdxl, "new-cache": cwd / "model"}
        return [
            ["cache", "recipe.yaml", "model.name=sdxl", f"paths.cache={cache}", f"model.source={source}"]
            for cache, source in sources.items()
        ]

    return make


def _means_moved(made: Made, results: Sequence[Result]) -> list[str]:
    """(mean - latents_mean) / latents_std, both scaled by the world's factor 0.5."""
    new, old = (np.load(made.cwd / folder / "latents/mean-00000.npy") for folder in ("new-cache", "old-cache"))
    return [] if np.allclose(new, (old - 0.25) / 2, atol=1e-5) else ["the statistics of the VAE are not in the latents"]


def _schedules() -> Iterator[Case]:
    file = "scheduler/scheduler_config.json"
    refused: list[dict[str, Any]] = [
        {"trained_betas": [0.1, 0.2]},
        {"trained_betas": [float("nan")] * 1000},
        {"trained_betas": "x"},
        {"trained_betas": [2.0] * 1000},
        {"beta_schedule": "sigmoid"},
        {"beta_schedule": "nope"},
        {"beta_schedule": None},
        {"beta_schedule": 5},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": -1},
        {"num_train_timesteps": "1000"},
        {"num_train_timesteps": None},
        {"num_train_timesteps": 10**9},
        {"num_train_timesteps": 1.5},
        {"prediction_type": "sample"},
        {"prediction_type": "flow_prediction"},
        {"prediction_type": None},
        {"rescale_betas_zero_snr": True},
        {"beta_start": -0.1},
        {"beta_start": 0.5, "beta_end": 0.1},
        {"beta_end": 2.0},
        {"beta_end": float("nan")},
        {"beta_start": "x"},
        {"beta_start": None},
        {"_class_name": "EDMEulerScheduler"},
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        {"_class_name": "os.system"},
        {"_class_name": "EDMDPMSolverMultistepScheduler", "beta_schedule": ...},
        {"_class_name": "Nope"},
        {"beta_start": 0.0, "beta_end": 0.0},
    ]
    for changes in refused:
        text = ", ".join(f"{key}={str(value)[:24]}" for key, value in changes.items())
        named = Refused((("scheduler", *changes, "max_timestep"),))
        yield model_case(f"scheduler {text}", json_of(file, **changes), named)
    for content in (b"", b"{", b"[]", b"null", b"\xff", b"[" * 9000):
        yield model_case(f"scheduler file {content[:8]!r}", bytes_of(file, content), Refused(("scheduler",)))
    few = json_of(file, num_train_timesteps=500)  # enough for the cache; the recipe trains up to timestep 999
    yield model_case("scheduler of 500 timesteps", few, Refused(("max_timestep",)), train=True)
    yield model_case("scheduler gone", without("scheduler"), Refused(("scheduler",)))
    for changes in (
        {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
        {"_class_name": "EulerDiscreteScheduler"},
        {"timestep_spacing": "trailing"},
        {"clip_sample": False},
        {"prediction_type": ...},
        {"trained_betas": None},
        {"rescale_betas_zero_snr": False},
        {"interpolation_type": "linear"},
        {"_diffusers_version": "0.2.2"},
    ):
        yield model_case(f"scheduler may have {changes}", json_of(file, **changes), SAME, train=True)
    yield model_case(
        "scheduler of cosine betas", json_of(file, beta_schedule="squaredcos_cap_v2"), Accepted(), train=True
    )
    yield model_case("scheduler of v", json_of(file, prediction_type="v_prediction"), Accepted(), train=True)
    yield model_case("scheduler of linear betas", json_of(file, beta_schedule="linear"), Accepted(), train=True)
    yield model_case(
        "scheduler of trained betas",
        json_of(file, trained_betas=np.linspace(1e-4, 0.02, 1000).tolist()),
        Accepted(),
        train=True,
    )


def _tokenizers() -> Iterator[Case]:
    files = {"tokenizer.json": b"", "tokenizer_config.json": b""}
    for file in files:
        for content in (b"", b"{", b"[]", b"null", b"\xff\xfe"):
            yield model_case(f"{file} {content!r}", bytes_of(f"tokenizer/{file}", content), Refused(("tokenizer",)))
    yield model_case("tokenizer gone", without("tokenizer"), Refused(("tokenizer",)))
    yield model_case("tokenizer.json gone", without("tokenizer/tokenizer.json"), Refused(("tokenizer",)))
    for length in (10**30, None, 0, -1, 64, "x"):
        expect = (
            Either((SAME, Refused(("tokenizer",)))) if length in (10**30, None) else Refused((("tokenizer", "length"),))
        )
        yield model_case(
            f"tokenizer of length {length}",
            json_of("tokenizer/tokenizer_config.json", model_max_length=length),
            expect,
            train=expect is not None and length in (10**30, None),
        )
    yield model_case("tokenizer that knows more than the encoder", _more_words, Refused((("tokenizer", "vocab"),)))
    yield model_case(
        "tokenizer that knows nothing", bytes_of("tokenizer/tokenizer.json", b"{}"), Refused(("tokenizer",))
    )


def _more_words(folder: Path) -> None:
    path = folder / "tokenizer/tokenizer.json"
    content = json.loads(path.read_text())
    size = len(content["model"]["vocab"])
    content["model"]["vocab"].update({f"w{n}</w>": size + n for n in range(50)})
    path.write_text(json.dumps(content))


def _indices() -> Iterator[Case]:
    file = "model_index.json"
    for content in (b"", b"{", b"[]", b"null", b"{}", b"\xff"):
        yield model_case(f"index {content!r}", bytes_of(file, content), Refused((file,)))
    yield model_case("index gone", without(file), Refused((file,)))
    for kind in (
        "FluxPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionXLPipeline",
        "StableDiffusion3Pipeline",
        "os.system",
        "Nope",
        None,
        5,
    ):
        yield model_case(
            f"index of class {kind}", json_of(file, _class_name=kind), Refused((("model_index", str(kind), "family"),))
        )
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        yield model_case(f"index lacks {part}", json_of(file, **{part: ...}), Refused(((part, file),)))
        yield model_case(f"index has null for {part}", json_of(file, **{part: [None, None]}), Refused(((part, file),)))
        yield model_case(f"index has a text for {part}", json_of(file, **{part: "x"}), Refused(((part, file),)))
    yield model_case(
        "index names code of its own", json_of(file, unet=["my_unet", "MyUNet"]), Refused(((file, "unet"),))
    )
    yield model_case(
        "index names a safety checker that was deleted",
        json_of(
            file, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"], requires_safety_checker=True
        ),
        SAME,
        train=True,
    )
    yield model_case(
        "SD under family sdxl", lambda folder: None, Refused((("sdxl", "text_encoder_2", "family"),)), named="sdxl"
    )
    yield model_case(
        "SDXL under family sd",
        lambda folder: None,
        Refused((("sdxl", "family", "addition_embed_type"),)),
        family="sdxl",
        named="sd",
    )


def at_random(rng: random.Random) -> Case:
    """A tensor or two taken from, renamed in or poisoned in a part."""
    part, seed, kind = (
        rng.choice(list(WEIGHTS)),
        rng.randrange(2**32),
        rng.choice(["lacks", "renames", "poisons", "cuts"]),
    )

    def change(tensors: Tensors) -> Tensors:
        draw = random.Random(seed)
        name = draw.choice(sorted(tensors))
        if kind == "lacks":
            return {key: value for key, value in tensors.items() if key != name}
        if kind == "renames":
            return {key + "_x" if key == name else key: value for key, value in tensors.items()}
        changed = tensors[name].clone()
        if kind == "poisons":
            changed.view(-1)[draw.randrange(changed.numel())] = draw.choice([float("nan"), float("inf"), -float("inf")])
            return {**tensors, name: changed}
        return {**tensors, name: changed.reshape(-1)[:-1]}

    return model_case(f"{part} {kind} a tensor, {seed}", tensors_of(part, change), Refused((part,)))

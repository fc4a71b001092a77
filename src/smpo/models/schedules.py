"""The path of a pipeline, from its scheduler's config: its alpha-bar table, and what its denoiser predicts.

A scheduler is a sampler with a schedule in it. Of a config training reads READ, with the defaults of the scheduler's
class; SAMPLING_ONLY does not matter to it; everything else is refused by name.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from torch import Tensor

from smpo.core.checks import listed
from smpo.core.errors import ConfigError
from smpo.maths.betas import alphas_cumprod_of_betas, named_alphas_cumprod, zero_terminal_snr
from smpo.maths.path import DIFFUSION_PATHS, DiffusionPath, GaussianPath
from smpo.models.configs import check_values
from smpo.models.folders import Part

CONFIG = "scheduler_config.json"
MAX_TIMESTEPS = 100_000
DESCRIBED_BY_BETAS = (
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
    "LCMScheduler", "TCDScheduler", "SASolverScheduler",
)
ZERO_SNR = "rescale_betas_zero_snr"
READ = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type", ZERO_SNR,
)
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SAMPLING_ONLY = (
    "timestep_spacing", "steps_offset", "skip_prk_steps", "set_alpha_to_one",  # which levels are visited
    "clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value",  # clipping
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "interpolation_type",
    "sigma_min", "sigma_max", "final_sigmas_type", "lambda_min_clipped",  # noise levels between those of the table
    "solver_order", "algorithm_type", "solver_type", "solver_p", "lower_order_final", "euler_at_final",
    "disable_corrector", "predict_x0", "predictor_order", "corrector_order", "tau_func", "skip_type",
    "noise_sampler_seed", "timestep_scaling", "original_inference_steps",
)
"""Keys that only affect how images are sampled from a trained model; the pipeline honours them."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "use_flow_sigmas": (False, None), "use_dynamic_shifting": (False, None),
    "timestep_type": ("discrete",), "flow_shift": (1.0,), "shift_terminal": (None,),
    "time_shift_type": ("exponential",),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
"""Keys that change what is trained unless they have one of these values."""
ANOTHER_BASE = "use a base whose scheduler has a schedule of betas and predicts epsilon or v"


def training_schedule(part: Part, class_name: str) -> dict[str, Any]:
    """READ of the scheduler in `part`, completed with the defaults of its class.

    Args:
        part: the folder "scheduler".
        class_name: of the scheduler, as model_index.json has it.

    Raises:
        ConfigError: a scheduler that no table of betas describes, a key that is not honoured or not known, or a value
            that is impossible.
    """
    config = part.json(CONFIG)
    for name in (class_name, config.get("_class_name", class_name)):
        if name not in DESCRIBED_BY_BETAS:
            raise part.error(f"{name} is no scheduler with a table of betas; known: {listed(DESCRIBED_BY_BETAS)}",
                             way_out=ANOTHER_BASE)
    scheduler = getattr(diffusers, class_name)
    check_values({key: value for key, value in config.items() if key in READ}, scheduler, part, file=CONFIG)
    _refuse_unhonoured(config, part)
    defaults = {name: found.default for name, found in inspect.signature(scheduler.__init__).parameters.items()}
    if config.get(ZERO_SNR) and ZERO_SNR not in defaults:
        raise part.error(f"{CONFIG}: {ZERO_SNR} is true, and a {class_name} does not know it",
                         way_out="use a DDIMScheduler or an EulerDiscreteScheduler")
    schedule = {key: config.get(key, defaults.get(key)) for key in READ}
    schedule["prediction_type"] = schedule["prediction_type"] or "epsilon"
    _check_schedule(schedule, part)
    return schedule


def path_of(schedule: Mapping[str, Any]) -> DiffusionPath:
    """The path of what `training_schedule` gives."""
    table = _alphas_cumprod(schedule)
    return DIFFUSION_PATHS[schedule["prediction_type"]](zero_terminal_snr(table) if schedule[ZERO_SNR] else table)


def _alphas_cumprod(schedule: Mapping[str, Any]) -> Tensor:
    if schedule["trained_betas"] is not None:
        return alphas_cumprod_of_betas(torch.tensor(schedule["trained_betas"], dtype=torch.float64))
    return named_alphas_cumprod(
        schedule["beta_schedule"], schedule["num_train_timesteps"], beta_start=schedule["beta_start"],
        beta_end=schedule["beta_end"],
    )


def check_timesteps(path: GaussianPath, largest: int, *, option: str = "training.max_timestep") -> None:
    """ConfigError unless timestep `largest`, which `option` sets, is a level of the path."""
    if largest >= path.num_levels:
        raise ConfigError(
            f"{option} must be less than the {path.num_levels} timesteps of the model's scheduler, got {largest}; "
            f"set it to {path.num_levels - 1} or less"
        )


def _refuse_unhonoured(config: Mapping[str, Any], part: Part) -> None:
    for key, value in config.items():
        if key in NEUTRAL and value not in NEUTRAL[key]:
            raise part.error(f"{CONFIG}: {key} is {value!r}, which training does not support", way_out=ANOTHER_BASE)
        if key not in (*READ, *SAMPLING_ONLY, *NEUTRAL) and not key.startswith("_"):
            raise part.error(f"{CONFIG}: {key} is not known and would be ignored",
                             way_out="remove it if nothing depends on it, or use another base")


def _check_schedule(schedule: Mapping[str, Any], part: Part) -> None:
    steps, predicts = schedule["num_train_timesteps"], schedule["prediction_type"]
    if predicts not in DIFFUSION_PATHS:
        raise part.error(f"{CONFIG}: prediction_type is {predicts!r}, and must be {' or '.join(DIFFUSION_PATHS)}",
                         way_out=ANOTHER_BASE)
    if schedule[ZERO_SNR] and predicts == "epsilon":  # x_0 = (x_t - sigma eps) / alpha
        raise part.error(f"{CONFIG}: {ZERO_SNR} needs prediction_type v_prediction, got epsilon: an image cannot be "
                         "told from noise alone", way_out=f"set {ZERO_SNR} to false, or use another base")
    if not 2 <= steps <= MAX_TIMESTEPS:
        raise part.error(f"{CONFIG}: num_train_timesteps is {steps}, and must lie in [2, {MAX_TIMESTEPS}]")
    betas = schedule["trained_betas"]
    if betas is not None:
        if not isinstance(betas, list) or len(betas) != steps:
            raise part.error(f"{CONFIG}: trained_betas must be a list of num_train_timesteps={steps} numbers")
        if not all(0 < beta < 1 for beta in betas):
            raise part.error(f"{CONFIG}: trained_betas must lie between 0 and 1")
        return
    if schedule["beta_schedule"] not in BETA_SCHEDULES:
        known = ", ".join(BETA_SCHEDULES)
        raise part.error(f"{CONFIG}: beta_schedule is {schedule['beta_schedule']!r}; known: {known}",
                         way_out=ANOTHER_BASE)
    if not 0 < schedule["beta_start"] <= schedule["beta_end"] < 1:
        raise part.error(
            f"{CONFIG}: beta_start and beta_end must satisfy 0 < start <= end < 1, got {schedule['beta_start']} and "
            f"{schedule['beta_end']}"
        )

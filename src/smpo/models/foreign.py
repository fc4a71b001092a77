"""What a single file is when it is no SD1.x or SDXL checkpoint: each kind is refused by its name, with the way out."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from smpo.core.errors import ConfigError
from smpo.models.original import TEXT, UNET, VAE
from smpo.models.tensor_files import StoredTensor, some

FIRST = f"{UNET}input_blocks.0.0.weight"
FLOATS = ("F32", "F16", "BF16")
FOLDER = "give the model's diffusers folder or hub id"
PREFIXES = tuple(prefix for parts in TEXT.values() for prefix in parts.values())
MAGIC = (  # first bytes of other kinds of files
    (b"GGUF", "a quantised GGUF file; give the .safetensors it was made from"),
    (b"PK\x03\x04", "a pickled PyTorch file, which can run code when it is opened; give its .safetensors version"),
    (b"\x80", "a pickled PyTorch file, which can run code when it is opened; give its .safetensors version"),
    (b"<", "a web page, not a model; download the file itself"),
    (b"version https://git-lfs", "a Git LFS pointer, not the model; run `git lfs pull`"),
)
ADAPTERS = r"(^|\.)lora_|\.lora[._]|hada_w|lokr_w|oft_blocks|dora_scale|^lycoris_"
V_PREDICTION = ("v_pred", "ztsnr")
EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
QUANTISED = r"qweight|absmax|quant_map|quant_state|weight_scale|scale_weight|scaled_fp8|comfy_quant"
NOISE = {  # metadata of kohya's trainer, ComfyUI and the model spec -> its values for noise under the plain schedule
    "modelspec.prediction_type": ("epsilon", "eps"), "modelspec.predict_key": ("epsilon", "eps"),
    "prediction_type": ("epsilon", "eps"), "ss_v_parameterization": ("false", "none"),
    "ss_zero_terminal_snr": ("false", "none"),
}
CHANNELS = {
    9: "an inpainting model (its UNet reads 9 channels)", 8: "an instruct-pix2pix model (its UNet reads 8 channels)",
    5: "a depth model (its UNet reads 5 channels)", 7: "an upscaler (its UNet reads 7 channels)",
}


@dataclass(frozen=True)
class Header:
    """What a .safetensors file says before its tensors are read."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]

    def has(self, *prefixes: str) -> bool:
        """Whether some tensor's name begins with one of `prefixes`."""
        return any(name.startswith(prefixes) for name in self.tensors)


def check_is_safetensors(path: Path) -> None:
    """Raise ConfigError for a file that is empty or of another kind, by its first bytes."""
    with open(path, "rb") as file:
        start = file.read(32)
    if not start:
        raise ConfigError(f"model: {path} is empty; download it again")
    is_headed = start[8:9] == b"{"  # a length of 8 bytes, which can look like any magic number, and a JSON object
    for magic, what in MAGIC:
        if start.startswith(magic) and not is_headed:
            raise ConfigError(f"model: {path} is {what}")
    if path.suffix != ".safetensors":
        raise ConfigError(f"model: {path} is no .safetensors file; give one, or {FOLDER.removeprefix('give ')}")


def _lacks(header: Header) -> str:
    """Which of UNet, VAE and text encoder a file lacks: "the VAE and the text encoder"."""
    parts = {"the UNet": (UNET,), "the VAE": (VAE,), "the text encoder": PREFIXES}
    return " and ".join(part for part, prefixes in parts.items() if not header.has(*prefixes))


def _starts(*prefixes: str) -> Callable[[Header], bool]:
    return lambda header: header.has(*prefixes)


def _holds(pattern: str) -> Callable[[Header], bool]:
    return lambda header: any(re.search(pattern, name) for name in header.tensors)


def _is_of_another_architecture(header: Header) -> bool:
    return header.has(
        "double_blocks.", "single_blocks.", "joint_blocks.", "transformer_blocks.", "blocks.", "layers.",
        "text_encoders.", "transformer.",
    ) or (header.has(UNET) and FIRST not in header.tensors)


KINDS: tuple[tuple[Callable[[Header], bool], str], ...] = (  # the first that fits names the file
    (lambda header: not header.tensors, "a file without a tensor; download it again"),
    (_holds(ADAPTERS), "a LoRA; give the checkpoint that it belongs to"),
    (_starts("emb_params", "string_to_param", "clip_g", "clip_l"), "a textual inversion; give a base model"),
    (_holds(r"^(control_model|controlnet_|input_hint_block|lllite_)|controlnet_cond_embedding"),
     "a ControlNet; give a base model"),
    (_holds("motion_modules|time_stack|time_mix"), "a video model or a part of one; give a base model for images"),
    (_starts("ip_adapter.", "image_proj."), "an IP-Adapter; give a base model"),
    (_holds(QUANTISED), "a quantised model; give its float16 version"),
    (_starts("down_blocks.", "up_blocks.", "mid_block.", "unet.", "vae.", "text_encoder.", "encoder.down_blocks."),
     f"in the names of diffusers' folders; {FOLDER}"),
    (_starts("conditioner.embedders.0.model."), "an SDXL refiner; give an SDXL base model"),
    (_starts("cond_stage_model.model."),
     f"an SD2.x checkpoint, and such a file does not say what the model predicts; {FOLDER}"),
    (_starts("input_blocks.", "output_blocks."), "a UNet alone; give the whole checkpoint"),
    (_starts("encoder.conv_in.", "decoder.conv_in."), "a VAE alone; give the whole checkpoint"),
    (_starts("text_model.", "transformer.resblocks."), "a text encoder alone; give the whole checkpoint"),
    (_is_of_another_architecture,
     "a checkpoint of another architecture (SD3, FLUX or the like); give one of SD1.x or SDXL"),
    (lambda header: _lacks(header) == "the UNet and the VAE and the text encoder",
     "no Stable Diffusion checkpoint; give one of SD1.x or SDXL"),
)


def family_of(header: Header) -> str:
    """The family of a whole checkpoint that predicts noise: "sd" or "sdxl".

    Raises:
        ConfigError: it is anything else; the message goes on after "FILE is ".
    """
    for is_it, what in KINDS:
        if is_it(header):
            raise ConfigError(what)
    if lacking := _lacks(header):
        raise ConfigError(f"a checkpoint without {lacking}; give the whole checkpoint")
    _check_channels(header.tensors[FIRST].shape)
    _check_prediction(header)
    _check_dtypes(header)
    return "sdxl" if header.has(*TEXT["sdxl"].values()) else "sd"


def _check_channels(shape: tuple[int, ...]) -> None:
    channels = shape[1] if len(shape) == 4 else 0
    if channels != 4:
        what = CHANNELS.get(channels, f"a model whose UNet reads {channels} channels")
        raise ConfigError(f"{what}; give a plain text-to-image base model of 4")


def _check_prediction(header: Header) -> None:
    """By markers alone: a file's tensors look the same whatever the model predicts."""
    marks = [name for name in (*V_PREDICTION, *EDM) if name in header.tensors]
    marks += [f"{key}={header.metadata[key]}" for key, noise in NOISE.items()
              if key in header.metadata and header.metadata[key].lower() not in noise]
    if marks:
        raise ConfigError(
            f"a model that does not predict noise under the plain schedule ({some(marks)}): v-prediction, zero "
            "terminal SNR or EDM, which is not supported yet; give a noise-predicting base model"
        )


def _check_dtypes(header: Header) -> None:
    others = {name: tensor.dtype for name, tensor in header.tensors.items() if tensor.dtype not in FLOATS}
    others = {name: dtype for name, dtype in others.items() if name.startswith((UNET, VAE, *PREFIXES))
              and not name.endswith("position_ids")}
    if others:
        raise ConfigError(
            f"stored as {some(set(others.values()))} ({some(others)}); give its float16, bfloat16 or float32 version"
        )

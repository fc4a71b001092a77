"""Single-file checkpoints (.safetensors, .ckpt) as base models."""

from pathlib import Path

from smpo.errors import ConfigError

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def converted(path: Path) -> Path:
    """The diffusers folder with the content of the single file `path`.

    Raises:
        ConfigError: always, so far.
    """
    raise ConfigError(
        f"model: {path} is a single file; convert it to a folder with diffusers "
        "(StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)) and give the folder"
    )

"""Where the shipped weights of the tiny models lie."""

from pathlib import Path

WEIGHTS = ("tiny-sd", "tiny-sdxl", "tiny-reward", "tiny-clip")


def weights_folder(name: str) -> Path:
    """Folder of one shipped model, in the layout that diffusers or transformers loads.

    Raises:
        ValueError: no model of this name is shipped.
    """
    if name not in WEIGHTS:
        raise ValueError(f"tiny model must be one of {', '.join(WEIGHTS)}, got {name!r}; choose a known one")
    return Path(__file__).parent / "weights" / name

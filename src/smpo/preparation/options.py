"""The options of the stages `pairs` and `cache`. This module imports no torch, so that recipes load fast."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from smpo.core.checks import check_fraction, check_known
from smpo.core.errors import ConfigError
from smpo.core.sections import Section
from smpo.data import FORMATS
from smpo.data.layouts import check_renames

MAX_ASPECT = 32.0  # long side / short side; resized for a cache of 1024 px such an image has 34 million px (100 MB)


class PairOptions(Section):
    """Which pairs of a source get into the pair set, and how the source is read.

    Attributes:
        format: a name in `FORMATS`, or auto.
        split: split of the source, if it has several.
        drop_human_ties: drop pairs whose label_0 and vote_share_0 are 0.5, or one of them if the other is missing.
        labelled: drop pairs without a human label, that is without label_0 and votes.
        max_dropped_fraction: refuse a source with a larger fraction of defective rows, in [0, 1]; ties do not count.
        exclude_words: drop pairs whose caption contains one of these as a whole word; case is ignored.
        max_rows: read at most so many rows of the source, chosen at random; the rows of a smaller number are among
            those of a larger one. None reads all.
        columns: field -> the source's column, e.g. {prompt: my_text, chosen: good, rejected: bad}.
        image_root: folder to which paths of images are relative; None is the folder of the source.
        max_aspect: drop pairs with an image whose long side is more than so many times the short one: resized to the
            resolution of the training it would fill the memory, and a square crop would show little of it.
    """

    format: str = "auto"
    split: str | None = None
    drop_human_ties: bool = True
    labelled: bool = True
    max_dropped_fraction: float = 0.1
    exclude_words: tuple[str, ...] = ()
    max_rows: int | None = None
    columns: dict[str, str] | None = None
    image_root: str | None = None
    max_aspect: float = MAX_ASPECT

    @model_validator(mode="after")
    def _usable(self) -> Self:
        check_known(self.format, ["auto", *FORMATS], what="data.format")
        check_fraction(max_dropped_fraction=self.max_dropped_fraction)
        check_renames(self.columns)
        if not self.max_aspect >= 1:
            raise ConfigError(f"max_aspect must be >= 1, got {self.max_aspect}")
        if self.max_rows is not None and self.max_rows < 1:
            raise ConfigError(f"max_rows must be >= 1, got {self.max_rows}")
        return self

    @property
    def how_to_read(self) -> dict[str, Any]:
        """The arguments of `open_source` besides the source and its format."""
        root = None if self.image_root is None else str(Path(self.image_root).expanduser().resolve())
        return {"split": self.split, "columns": self.columns, "image_root": root}


@dataclass(frozen=True)
class Crops:
    """The views of an image: how it is resized, cropped and mirrored.

    Attributes:
        resolution: side of the square, px; the shorter side is resized to it (bilinear, as in Diffusion-DPO's code).
        crop: "center" or "random".
        crops: how many crops, each with its own position.
        flips: whether each crop is followed by its mirror image.
    """

    resolution: int
    crop: str = "center"
    crops: int = 1
    flips: bool = True

    @property
    def num_views(self) -> int:
        """Number of views of each image."""
        return self.crops * (2 if self.flips else 1)


class CacheOptions(Section):
    """What the cache stores of each image and prompt.

    Attributes:
        crop: place of the square crop: the centre, or a random place that depends on the image alone.
    """

    resolution: int = Field(512, ge=8, le=8192, multiple_of=8, description="px; the shorter side, then a square crop")
    crop: Literal["center", "random"] = "center"
    crops: int = Field(1, gt=0, description="crops stored of each image")
    flips: bool = Field(True, description="store the mirrored crops too")
    sizes: Literal["constant", "real"] = Field(
        "constant", description="SDXL's size conditioning: as if uncropped (the released scripts), or the real sizes"
    )
    empty_prompt: Literal["encode", "zeros"] = Field(
        "encode", description="encoding of a dropped caption: of the empty prompt, or zeros as in SDXL's inference"
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="of the stored moments and embeddings")
    vae_dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="precision of the VAE")
    batch_size: int = Field(8, gt=0, description="images per VAE call")

    @property
    def views(self) -> Crops:
        """The views of each image."""
        return Crops(self.resolution, crop=self.crop, crops=self.crops, flips=self.flips)

"""The contract of a scorer: what every member of `smpo.rewards.SCORERS` offers and keeps to."""

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image
from torch import Tensor


class Preprocessing(Protocol):
    """From one decoded image to what the model reads. Picklable and free of weights: worker processes run it."""

    def __call__(self, image: Image.Image) -> Tensor:
        """The model's input of one image of any mode and size, without a batch axis."""
        ...

    def describe(self) -> dict[str, Any]:
        """Settings and version; two preprocessings that describe themselves alike give equal tensors."""
        ...


class Scorer(Protocol):
    """Judges how well an image suits its prompt, in one number.

    A member is a frozen dataclass. Its fields are its settings; they stand in a class that imports no torch (see
    `smpo.core.registry.Registry`). Constructing it loads nothing: weights are loaded by the first call that needs them.

    Every member keeps these rules:

    1. The score of a row depends on the image and the prompt of that row alone, up to float rounding by batch size.
    2. Scores are finite float32 numbers, of shape (B,), on the CPU, whatever device and dtype compute them.
    3. `__call__` equals `score` of the stacked outputs of `preprocessing`.
    4. `identity()` changes with everything that can change a score: settings, contents of files, preprocessing. It does
       not contain places, so the same files elsewhere have the same identity.
    5. A bad setting raises ConfigError when the scorer is constructed; a file that is missing, damaged or of another
       architecture raises DataError when it is read.
    6. docs/scorers.md describes it: source, preprocessing, units, and how equality with the original was checked.

    A scorer that can also say which attributes of a prompt an image has, fulfils
    `smpo.rewards.scoring.DetailedScorer` as well.
    """

    @property
    def name(self) -> str:
        """Its name in `SCORERS`."""
        ...

    @property
    def units(self) -> str:
        """What a score of 1 means, e.g. "cosine"."""
        ...

    @property
    def bounds(self) -> tuple[float, float] | None:
        """(lowest, highest) possible score; None where it has none."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether a better image has a higher score."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """The image part; loads no weights."""
        ...

    def score(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score of each preprocessed image, stacked to (B, ...), for its prompt: (B,), float32, on the CPU.

        A prompt's features are computed once and kept.
        """
        ...

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """`score` of the preprocessed images, shape (B,), float32, on the CPU."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that decides the numbers: name, settings, weights' hashes, dtype, preprocessing, units."""
        ...

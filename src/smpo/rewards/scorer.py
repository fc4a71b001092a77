"""What a scorer is to the stages that use one: an image part that workers can run, and a model part."""

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
    """A reward model. The class is a frozen dataclass of its settings; weights are loaded on the first call.

    Attributes:
        name: its name in `SCORERS`.
        units: what a score of 1 means, e.g. "cosine".
        bounds: (lowest, highest) possible score; None where it has none.
        higher_is_better: which images it prefers.
        preprocessing: its image part.
    """

    name: str
    units: str
    bounds: tuple[float, float] | None
    higher_is_better: bool

    @property
    def preprocessing(self) -> Preprocessing:
        """The image part; loads no weights."""
        ...

    def score(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score of each preprocessed image, stacked to (B, ...), for its prompt: (B,), float32, on the CPU.

        A prompt's features are computed once and kept; row i depends on input i only.
        """
        ...

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """`score` of the preprocessed images, shape (B,), float32, on the CPU."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that decides the numbers: name, source, revision, weights' hashes, dtype, preprocessing."""
        ...

"""What a scorer is to the stages that use one."""

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image
from torch import Tensor


class Scorer(Protocol):
    """A reward model. The class is a frozen dataclass of its settings; weights are loaded on the first call.

    Attributes:
        name: its name in `SCORERS`.
        units: what a score of 1 means, e.g. "cosine".
        bounds: (lowest, highest) possible score.
        higher_is_better: which images it prefers.
    """

    name: str
    units: str
    bounds: tuple[float, float]
    higher_is_better: bool

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Score of each image for its prompt, shape (B,), float32, on the CPU; row i depends on input i only."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that decides the numbers: name, source, revision, weights' hashes, dtype, preprocessing."""
        ...

"""What the parts of a recipe see of each other, so that each part checks what it needs of the others.

A part is a section or a member of a plug-in point. One that needs something of another part has a method
`check_recipe`. It is called once, when the recipe is loaded, so it imports no torch.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable


class LabelFacts(Protocol):
    """What others see of `labels`; see `smpo.labels.label.Label`."""

    @property
    def is_smoothed(self) -> bool: ...  # noqa: D102

    @property
    def needs_scores(self) -> bool: ...  # noqa: D102


class NoisingFacts(Protocol):
    """What others see of `noising`; see `smpo.noising`."""

    @property
    def network(self) -> str | None: ...  # noqa: D102

    @property
    def chain_length(self) -> int: ...  # noqa: D102


class ObjectiveFacts(Protocol):
    """What others see of `objective`; see `smpo.objectives`."""

    @property
    def needs_reference(self) -> bool: ...  # noqa: D102

    @property
    def takes_smoothed_labels(self) -> bool: ...  # noqa: D102


class RecipeParts(Protocol):
    """A whole recipe, each of its members built.

    Attributes:
        names: section of a plug-in point -> the member that it names; "scorer" is absent where there is none.
        labels: who wins a pair.
        noising: how latents become noisy.
        objective: the loss.
        cached_flips: whether the cache holds mirrored images.
        init_weights: start weights of the policy, if they are not the model's own.
        reference_weights: weights of the reference, if they are not the policy's start.
    """

    @property
    def names(self) -> Mapping[str, str]: ...  # noqa: D102

    @property
    def labels(self) -> LabelFacts: ...  # noqa: D102

    @property
    def noising(self) -> NoisingFacts: ...  # noqa: D102

    @property
    def objective(self) -> ObjectiveFacts: ...  # noqa: D102

    @property
    def cached_flips(self) -> bool: ...  # noqa: D102

    @property
    def init_weights(self) -> str | None: ...  # noqa: D102

    @property
    def reference_weights(self) -> str | None: ...  # noqa: D102


@runtime_checkable
class ChecksRecipe(Protocol):
    """A part that needs something of the other parts."""

    def check_recipe(self, recipe: RecipeParts) -> None:
        """Raise ConfigError unless the other parts of the recipe have what this one needs."""
        ...

"""A training run on labelled pairs."""

from dataclasses import dataclass
from functools import cached_property

from smpo.noising.noising import Noising
from smpo.objectives.objective import Objective
from smpo.preparation.cache import LatentCache, check_encoders
from smpo.training.learners.preference import PreferenceLearner
from smpo.training.options import TrainingOptions
from smpo.training.run import Run
from smpo.training.sources.cached import CachedInversions
from smpo.training.sources.order import ExampleOrder
from smpo.training.sources.pairs import PairSource, TrainingPairs


@dataclass(frozen=True, kw_only=True)
class PreferenceRun(Run):
    """Labelled pairs from a latent cache, a noising and an objective.

    Attributes:
        noising: a member of seam 2.
        objective: a member of seam 3.
        pairs: labelled pairs.
        cache: their latents and prompts.
        cached: the inversions of its examples, where these were made before training.
    """

    noising: Noising
    objective: Objective
    pairs: TrainingPairs
    cache: LatentCache
    cached: CachedInversions | None = None

    @property
    def order(self) -> ExampleOrder:
        """Which pair comes when."""
        return order_of(self.seed, self.noising, self.objective, self.options)

    @cached_property
    def source(self) -> PairSource:
        """The labelled pairs."""
        return PairSource(self.pairs, self.cache, self.family, self.options, self.order, self.cached)

    @cached_property
    def learner(self) -> PreferenceLearner:
        """Noising and objective."""
        return PreferenceLearner(self.family, self.noising, self.objective, is_cached=self.cached is not None)

    @property
    def unit(self) -> str:
        """ "pairs", or "images" where an example shows one image of its pair."""
        return self.objective.unit

    def check_inputs(self) -> None:
        """Raise StaleError unless the cache was made with the encoders of the run's model."""
        check_encoders(self.cache, self.family)

    @property
    def results(self) -> dict[str, int]:
        """The numbers of pairs that there are, and that were used."""
        return {"pairs": len(self.pairs), "pairs_seen": self.options.steps * self.options.batch_size}


def order_of(seed: int, noising: Noising, objective: Objective, options: TrainingOptions) -> ExampleOrder:
    """Which pair comes when in a run of these parts."""
    return ExampleOrder(
        seed, objective.winner_share, chain_length=noising.chain_length, reuse_epochs=options.cached_inversion_epochs
    )

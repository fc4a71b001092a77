"""The results of an audit."""

from dataclasses import dataclass

from smpo.audit.human_labels import Agreement, Contradictions
from smpo.audit.repeats import ImageFindings
from smpo.audit.training_signal import TrainingSignal


@dataclass(frozen=True)
class Audit:
    """The results of an audit.

    Attributes:
        pairs: number of pairs.
        prompts: number of different captions.
        preferences: pairs in which people preferred one image.
        human_ties: pairs that people called a tie.
        unlabelled: pairs without a human label.
        agreements: agreement of each scorer with people.
        contradictions: contradictions among human labels; None where there are no human preferences.
        images: repeated images.
        signal: distribution of the smoothed labels; None where there are no labels.
    """

    pairs: int
    prompts: int
    preferences: int
    human_ties: int
    unlabelled: int
    agreements: tuple[Agreement, ...]
    contradictions: Contradictions | None
    images: ImageFindings
    signal: TrainingSignal | None

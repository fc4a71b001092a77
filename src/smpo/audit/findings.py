"""The record of an audit."""

from dataclasses import dataclass

from smpo.audit.human_labels import Agreement, Contradictions
from smpo.audit.repeats import ImageFindings
from smpo.audit.training_signal import TrainingSignal


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        pairs: in the pair set.
        prompts: different captions.
        preferences: pairs in which people preferred one image.
        human_ties: pairs that people called a tie.
        unlabelled: pairs without a human label.
        agreements: one entry per scorer.
        contradictions: of people with themselves; None where there are no human preferences.
        images: repeated images.
        signal: smoothed labels; None where there are no labels.
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

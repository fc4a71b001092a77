"""Numbers and sentences of a report, computed from a comparison."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from smpo.evaluation.compare import Comparison, OverOptimisation, Pairing
from smpo.evaluation.statistics import SIGNIFICANCE, Interval, WinRate

NOTABLE_DRIFT = 0.2  # standard deviations; Cohen's "small" effect
MANY_TIES = 0.05  # share of the pairs


def shortened(text: str, length: int) -> str:
    """`text`, cut to at most `length` characters with an ellipsis."""
    return text if len(text) <= length else text[: length - 3].rstrip() + "..."


def percent(share: float) -> str:
    """A share in [0, 1] as "63.1 %"."""
    return f"{100 * share:.1f} %"


def decimals(intervals: Sequence[Interval]) -> int:
    """Digits after the point that show two figures of the narrowest interval, in [0, 4]."""
    widths = [i.high - i.low for i in intervals if i.high > i.low]
    return 3 if not widths else min(4, max(0, 1 - math.floor(math.log10(min(widths)))))


def interval_text(interval: Interval, digits: int) -> str:
    """The bounds as "[20.1, 20.6]"."""
    return f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def win_interval_text(won: WinRate) -> str:
    """The interval of a win-rate in percent, and the number of ties if any: "[58.0, 67.9], 4 ties"."""
    ties = f", {won.ties:,} tie{'s' if won.ties > 1 else ''}" if won.ties else ""
    return f"[{100 * won.low:.1f}, {100 * won.high:.1f}]{ties}"


def joined(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


@dataclass(frozen=True)
class Finding:
    """One sentence of the headline; `tone` is lead, better, worse, undecided, warning or note."""

    text: str
    tone: str


def headline(comparison: Comparison, model: str) -> tuple[Finding, ...]:
    """The findings about `model`: the lead, improvements, declines, undecided scorers, signs of over-optimisation.

    The lead is about the training reward where it is known, else about the first scorer. "Better" and "worse" come
    from sign tests, Holm-adjusted over all sets and scorers of the comparison.
    """
    pairings = [comparison.pairing(model, scorer) for scorer in comparison.units]
    trained = next((e for e in comparison.over_optimisation if e.model == model), None)
    lead = comparison.pairing(model, trained.training_reward) if trained else pairings[0]
    findings = [Finding(_lead(lead, comparison.baseline, is_trained=trained is not None), "lead")]
    if len(pairings) > 1:
        findings += _by_verdict(pairings, comparison.baseline)
        findings += [_over_optimisation_finding(trained)] if trained else []
    return (*findings, *_looks(comparison, model))


def _looks(comparison: Comparison, model: str) -> list[Finding]:
    """Changes of the look and the diversity of the model's images, where they were measured."""
    moved = [
        f"{d.measure} {d.shift.value:+.2f}" for d in comparison.drifts
        if d.model == model and d.p_holm < SIGNIFICANCE and abs(d.shift.value) >= NOTABLE_DRIFT
    ]
    findings = []
    if moved:
        text = f"The images look different, in standard deviations of {comparison.baseline}: {joined(moved)}."
        findings.append(Finding(text, "warning"))
    for result in comparison.diversity:
        for name, value, change in (
            ("Images of one prompt", result.within, result.within_change),
            ("Images of different prompts", result.spread, result.spread_change),
        ):
            if result.model == model and value and change and change.high < 0:
                lost = percent(-change.value / (value.value - change.value))
                findings.append(Finding(f"{name} differ {lost} less than those of {comparison.baseline}.", "warning"))
    return findings


def _lead(pairing: Pairing, baseline: str, *, is_trained: bool) -> str:
    won = pairing.win_rate
    outcome = {
        "better": "a significant improvement",
        "worse": "significantly worse",
        "undecided": "too close to call",
    }[pairing.verdict]
    role = ", the reward it was trained on" if is_trained else ""
    return (
        f"{pairing.model} beats {baseline} on {percent(won.rate)} of {won.n:,} images under {pairing.scorer}{role} "
        f"(95 % interval {100 * won.low:.1f} to {100 * won.high:.1f} %): {outcome}."
    )


def _by_verdict(pairings: Sequence[Pairing], baseline: str) -> list[Finding]:
    findings = []
    starts = {"better": "Better than", "worse": "Worse than", "undecided": "Not distinguishable from"}
    for verdict, start in starts.items():
        chosen = [p for p in pairings if p.verdict == verdict]
        if chosen:
            named = joined([f"{p.scorer} ({_rate_note(p.win_rate)})" for p in chosen])
            count = f"{len(chosen)} of {len(pairings)} scorers"
            findings.append(Finding(f"{start} {baseline} under {count}: {named}.", verdict))
    return findings


def _rate_note(won: WinRate) -> str:
    note = f"wins {percent(won.rate)}"
    if won.ties > MANY_TIES * won.n:  # a rate near 50 % may come from ties
        return (
            f"{note}: {percent(won.share_won)} won, {percent(won.losses / won.n)} lost, "
            f"{percent(won.ties / won.n)} tied"
        )
    return note + (", interval includes 50 %" if won.low <= 0.5 <= won.high else "")


def _over_optimisation_finding(entry: OverOptimisation) -> Finding:
    reward, falling = entry.training_reward, entry.falling
    if entry.flagged:
        verb = "falls" if len(falling) == 1 else "fall"
        return Finding(f"Sign of over-optimisation: {reward} rises while {joined(falling)} {verb}.", "warning")
    if not entry.rises:
        return Finding(f"The training reward {reward} did not rise.", "warning")
    return Finding(f"No sign of over-optimisation: {reward} rises, no other scorer falls significantly.", "note")

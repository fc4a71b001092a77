"""The summary of an audit in a few lines, for a terminal."""

from smpo.audit.findings import Audit
from smpo.audit.human_labels import Agreement, Contradictions
from smpo.audit.repeats import ImageFindings
from smpo.audit.training_signal import TrainingSignal
from smpo.report.wording import percent


def summary(audit: Audit) -> list[tuple[str, str]]:
    """Lines of (topic, finding), in the order of the report."""
    lines = [("pairs", f"{audit.pairs:,} pairs, {audit.prompts:,} prompts"), ("human labels", _labels(audit))]
    lines += [(result.scorer, _agreement(result)) for result in audit.agreements]
    if audit.contradictions is not None:
        lines.append(("contradictions", _contradictions(audit.contradictions)))
    lines.append(("images", _images(audit.images, audit.pairs)))
    if audit.signal is not None:
        lines.append(("signal", _signal(audit.signal)))
    return lines


def _labels(audit: Audit) -> str:
    if audit.unlabelled == audit.pairs:
        return "none, so agreement and contradictions are unknown"
    shares = [(audit.preferences, "prefer one image"), (audit.human_ties, "are ties"), (audit.unlabelled, "have none")]
    return ", ".join(f"{count:,} ({percent(count / audit.pairs)}) {what}" for count, what in shares if count)


def _agreement(result: Agreement) -> str:
    ties = f"; {result.score_ties:,} score ties" if result.score_ties else ""
    if result.agreement is None:
        return f"no pair has both a human preference and unequal scores{ties}"
    share = result.agreement
    text = (
        f"agrees with people on {percent(share.value)} [{100 * share.low:.1f}, {100 * share.high:.1f}] of "
        f"{result.pairs:,} pairs"
    )
    if result.by_gap:
        low, high = result.by_gap[0].agreement.value, result.by_gap[-1].agreement.value
        text += f": {percent(low)} in the tenth with the smallest gap, {percent(high)} in the tenth with the largest"
    return text + ties


def _contradictions(result: Contradictions) -> str:
    share = percent(result.prompts / result.judged_prompts) if result.judged_prompts else "0.0 %"
    return (
        f"{result.prompts:,} of {result.judged_prompts:,} prompts ({share}): {result.reversed:,} image pairs judged "
        f"both ways of {result.repeated:,} judged repeatedly, {result.cyclic_prompts:,} prompts with a longer cycle"
    )


def _images(result: ImageFindings, pairs: int) -> str:
    return (
        f"{result.images:,} different ones, {result.reused:,} in several pairs; {result.near_pairs:,} pairs "
        f"({percent(result.near_pairs / pairs)}) of near-duplicates; {result.clustered_images:,} images in "
        f"{result.clusters:,} groups of near-duplicates, the largest of {result.largest_cluster:,}"
    )


def _signal(result: TrainingSignal) -> str:
    light, heavy = result.deciles[0], result.deciles[-1]
    negative = f"; {result.negative:,} pairs favour their loser" if result.negative else ""
    return (
        f"the heaviest tenth of {result.pairs:,} pairs has {percent(heavy.weight_share)} of the gradient at the start, "
        f"the lightest {percent(light.weight_share)}; worth {result.effective_pairs:,.0f} pairs of equal weight"
        f"{negative}"
    )

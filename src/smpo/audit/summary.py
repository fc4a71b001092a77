"""An audit in a few lines for a terminal."""

from smpo.audit.findings import Audit
from smpo.audit.human_labels import Agreement, Contradictions
from smpo.audit.repeats import ImageFindings
from smpo.audit.training_signal import TrainingSignal
from smpo.report.wording import percent


def summary(audit: Audit) -> list[tuple[str, str]]:
    """(topic, finding) lines, in the order of the report."""
    lines = [("pairs", f"{audit.pairs:,} pairs, {audit.prompts:,} prompts"), ("human labels", _labels(audit))]
    lines += [(f"{found.scorer}", _agreement(found)) for found in audit.agreements]
    if audit.contradictions is not None:
        lines.append(("contradictions", _contradictions(audit.contradictions)))
    lines.append(("images", _images(audit.images, audit.pairs)))
    if audit.signal is not None:
        lines.append(("signal", _signal(audit.signal)))
    return lines


def _labels(audit: Audit) -> str:
    if audit.unlabelled == audit.pairs:
        return "none: agreement and contradictions cannot be judged"
    shares = [(audit.preferences, "prefer one image"), (audit.human_ties, "are ties"), (audit.unlabelled, "have none")]
    return ", ".join(f"{count:,} ({percent(count / audit.pairs)}) {what}" for count, what in shares if count)


def _agreement(found: Agreement) -> str:
    ties = f"; {found.score_ties:,} score ties" if found.score_ties else ""
    if found.agreement is None:
        return f"no pair has both a human preference and unequal scores{ties}"
    share = found.agreement
    text = (
        f"agrees with people on {percent(share.value)} [{100 * share.low:.1f}, {100 * share.high:.1f}] of "
        f"{found.pairs:,} pairs"
    )
    if found.by_gap:
        low, high = found.by_gap[0].agreement.value, found.by_gap[-1].agreement.value
        text += f": {percent(low)} in the tenth with the smallest gap, {percent(high)} in that with the largest"
    return text + ties


def _contradictions(found: Contradictions) -> str:
    share = percent(found.prompts / found.judged_prompts) if found.judged_prompts else "0.0 %"
    return (
        f"{found.prompts:,} of {found.judged_prompts:,} prompts ({share}): {found.reversed:,} image pairs judged "
        f"both ways of {found.repeated:,} judged repeatedly, {found.cyclic_prompts:,} prompts with a longer cycle"
    )


def _images(found: ImageFindings, pairs: int) -> str:
    return (
        f"{found.images:,} different ones, {found.reused:,} in several pairs; {found.near_pairs:,} pairs "
        f"({percent(found.near_pairs / pairs)}) of near-duplicates; {found.clustered_images:,} images in "
        f"{found.clusters:,} groups of near-duplicates, the largest of {found.largest_cluster:,}"
    )


def _signal(found: TrainingSignal) -> str:
    light, heavy = found.deciles[0], found.deciles[-1]
    negative = f"; {found.negative:,} pairs push towards their loser" if found.negative else ""
    return (
        f"the heaviest tenth of {found.pairs:,} pairs carries {percent(heavy.weight_share)} of the gradient at the "
        f"start, the lightest {percent(light.weight_share)}; as good as {found.effective_pairs:,.0f} equal pairs"
        f"{negative}"
    )

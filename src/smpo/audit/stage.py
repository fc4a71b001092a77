"""Stage `audit`: checks of a pair set before training on it, reported as text, Markdown, HTML and JSON."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from smpo.audit.audit_figures import agreement_chart, signal_chart
from smpo.audit.findings import Audit
from smpo.audit.human_labels import agreement, contradictions
from smpo.audit.repeats import find_repeats, image_numbers, remove_blocks
from smpo.audit.summary import summary
from smpo.audit.training_signal import training_signal
from smpo.core.artefacts import MANIFEST, Artefact, Status, begin, finish, hash_file, write_atomically
from smpo.core.checks import check_positive
from smpo.core.errors import StaleError
from smpo.data.images import decode_image
from smpo.data.pair_set import PairSet
from smpo.maths.smoothing import pair_weight
from smpo.preparation.label import LabelTable
from smpo.preparation.score import ScoreTable, check_same_pairs
from smpo.report.plots import Plot, data_uri, webp_thumbnail, write_plot
from smpo.report.tables import template_environment
from smpo.report.training_figures import label_distribution

STAGE = "audit"
QUALITY = 80  # of thumbnails
KINDS = ("json", "md", "html", "txt")


@dataclass(frozen=True)
class AuditReport:
    """What `audit_pairs` wrote: `text` is the summary; `skipped` says that the audit existed."""

    folder: Path
    text: str
    skipped: bool


def audit_pairs(
    pairs: PairSet, out: Path, *, scores: Mapping[str, ScoreTable] | None = None, labels: LabelTable | None = None,
    gamma: float = 1.0, progress: Callable[[int, int | None], None] | None = None,
) -> AuditReport:
    """Audit a pair set; writes audit.txt, .md, .html and .json to `out`. An interrupted audit is resumed.

    Args:
        pairs: the pair set.
        out: folder of the audit.
        scores: scorer -> its scores of the pairs.
        labels: smoothed labels of the pairs.
        gamma: sensitivity of the objective, which scales the weights.
        progress: called with (pairs done, pairs) while images are decoded.

    Raises:
        StaleError: scores or labels belong to another pair set, or `out` was made from other inputs.
        DataError: an image cannot be decoded.
    """
    check_positive(gamma=gamma)
    scores = scores or {}
    for table in scores.values():
        check_same_pairs(table, pairs)
    inputs = {"pairs": pairs.fingerprint, **{f"scores.{name}": table.fingerprint for name, table in scores.items()}}
    if labels is not None:
        if labels.pairs_fingerprint != pairs.fingerprint:
            raise StaleError(f"{labels.folder} labels another pair set than {pairs.folder}; run `smpo label` for it")
        inputs["label"] = labels.fingerprint
    status = begin(out, stage=STAGE, settings={"gamma": gamma}, inputs=inputs)
    if status is not Status.DONE:
        _write(out, pairs, _audit(pairs, out, scores, labels, gamma, progress), labels)
        files = [f"audit.{kind}" for kind in KINDS] + [f"figures/{path.name}" for path in out.glob("figures/*.png")]
        finish(out, {"pairs": len(pairs), "sha256": hash_file(out / "audit.json")}, files=files)
        remove_blocks(out)
    return AuditReport(out, Artefact.open(out, stage=STAGE).read("audit.txt").decode(), status is Status.DONE)


def audit_folder(
    pairs: Path, out: Path, *, scores: Path | None = None, labels: Path | None = None, gamma: float = 1.0,
    progress: Callable[[int, int | None], None] | None = None,
) -> AuditReport:
    """`audit_pairs` over the folders of artefacts. Scores and labels are left out where they do not exist.

    Args:
        pairs: folder that `smpo pairs` wrote.
        out: folder of the audit.
        scores: folder that `smpo score` wrote, with one table per scorer.
        labels: folder that `smpo label` wrote.
        gamma: sensitivity of the objective.
        progress: as in `audit_pairs`.

    Raises:
        DataError: an artefact is incomplete.
    """
    tables = sorted(path.parent for path in scores.glob(f"*/{MANIFEST}")) if scores is not None else []
    table = LabelTable.open(labels) if labels is not None and (labels / MANIFEST).exists() else None
    return audit_pairs(
        PairSet.open(pairs), out, scores={folder.name: ScoreTable.open(folder) for folder in tables}, labels=table,
        gamma=gamma, progress=progress,
    )


def _audit(
    pairs: PairSet, out: Path, scores: Mapping[str, ScoreTable], labels: LabelTable | None, gamma: float,
    progress: Callable[[int, int | None], None] | None,
) -> Audit:
    human = pairs.human_labels.numpy()
    prompts = pc.dictionary_encode(pairs.index["caption"]).combine_chunks().indices.to_numpy(zero_copy_only=False)
    decided = int(((human == 0) | (human == 1)).sum())
    return Audit(
        pairs=len(pairs), prompts=int(prompts.max(initial=-1)) + 1, preferences=decided,
        human_ties=int((human == 0.5).sum()), unlabelled=int(np.isnan(human).sum()),
        agreements=tuple(
            agreement(name, table.score_0.numpy(), table.score_1.numpy(), human, prompts)
            for name, table in scores.items()
        ),
        contradictions=contradictions(pairs.pair_ids, image_numbers(pairs), human, prompts) if decided else None,
        images=find_repeats(pairs, out, progress=progress),
        signal=None if labels is None else training_signal(labels.p_winner.numpy(), gamma=gamma),
    )


def _write(out: Path, pairs: PairSet, audit: Audit, labels: LabelTable | None) -> None:
    write_atomically(out / "audit.json", json.dumps(dataclasses.asdict(audit), indent=1) + "\n")
    images = audit.images
    view = {
        "audit": audit, "summary": summary(audit), "source": str(pairs.folder), "plots": _plots(audit, labels, out),
        "alike": [(name, *_thumbnails(pairs, name)) for name in images.near_pair_examples],
        "clusters": [[(name, _thumbnails(pairs, name)[1][side]) for name, side in c] for c in images.cluster_examples],
    }
    environment = template_environment()
    environment.filters["embedded"] = lambda file: data_uri(out / file)
    for kind in ("md", "html"):
        write_atomically(out / f"audit.{kind}", environment.get_template(f"audit.{kind}.j2").render(view))
    write_atomically(out / "audit.txt", "\n".join(f"{name:<14} {text}" for name, text in summary(audit)) + "\n")


def _plots(audit: Audit, labels: LabelTable | None, out: Path) -> list[Plot]:
    plots = []
    judged = [agreement for agreement in audit.agreements if agreement.by_gap]
    if judged:
        plots.append(write_plot(
            out, "agreement", "Agreement by score gap", "Share of pairs in which the scorer and people prefer the same "
            "image, with 95 % intervals. A good scorer starts near 50 % and rises to the right.",
            partial(agreement_chart, judged),
        ))
    if audit.signal is not None and labels is not None:
        signal, p_winner = audit.signal, labels.p_winner
        plots += [
            write_plot(
                out, "labels", "Smoothed labels",
                "Probability that the winner is better, and the weight of each pair in the loss.",
                partial(label_distribution, p_winner, pair_weight(p_winner, gamma=signal.gamma)),
            ),
            write_plot(
                out, "signal", "Training signal",
                "With hard labels each tenth of the pairs would have a tenth of the gradient (dashed).",
                partial(signal_chart, signal),
            ),
        ]
    return plots


def _thumbnails(pairs: PairSet, pair_id: str) -> tuple[str, list[str]]:
    """Caption and both images of a pair, as base64 of WebP."""
    row = pairs.pair_ids.index(pair_id)
    pair = next(pairs.iter_images(row, row + 1))
    return pair.caption, [
        webp_thumbnail(decode_image(data), quality=QUALITY) for data in (pair.image_0, pair.image_1)
    ]

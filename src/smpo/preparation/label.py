"""Stage `label`: the winner of each pair and its probability, from scores and people's choices."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from smpo.core.artefacts import Status, begin, finish, read_manifest, write_atomically
from smpo.core.errors import DataError
from smpo.data.pair_set import PairSet
from smpo.data.parquet_files import write_parquet
from smpo.labels.judgements import Judgements
from smpo.labels.label import Label
from smpo.preparation.calibration import CalibrationBin, ScaleFit, calibration, fit_scale
from smpo.preparation.pair_tables import PairTable
from smpo.preparation.score import ScoreTable, check_same_pairs

STAGE = "label"
LABELS_FILE = "labels.parquet"
DROPPED = "dropped.jsonl"
LABEL_SCHEMA = pa.schema([("pair_id", pa.string()), ("winner", pa.int64()), ("p_winner", pa.float32())])
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class LabelReport:
    """Counts and statistics of the stage.

    Attributes:
        folder: of the artefact.
        pairs: number of pairs in the pair set.
        kept: number of labelled pairs.
        dropped: reason code -> number of pairs.
        score_ranges: score table -> (min, max) that scaled its scores; empty if the label uses no range.
        scale: fitted Bradley-Terry scale; None if none was fitted.
        agreement: score table -> fraction of the pairs with a human choice and unequal scores in which both name the
            same winner; tables without such pairs are left out.
        calibration: probabilities beside people's choices, in tenths of the pairs; empty without choices.
        p_winner_quantiles: quantile in [0, 1], as text -> p_winner.
    """

    folder: Path
    pairs: int
    kept: int
    dropped: dict[str, int]
    score_ranges: dict[str, tuple[float, float]]
    scale: ScaleFit | None
    agreement: dict[str, float]
    calibration: tuple[CalibrationBin, ...]
    p_winner_quantiles: dict[str, float]


class LabelTable(PairTable):
    """The labelled pairs, in the order of the pair set; dropped pairs are absent."""

    stage, file, schema = STAGE, LABELS_FILE, LABEL_SCHEMA

    @cached_property
    def winner(self) -> Tensor:
        """Index of the winning image of each pair, in {0, 1}, shape (N,), int64."""
        return self.column("winner")

    @cached_property
    def p_winner(self) -> Tensor:
        """alpha / gamma of each pair, in [0, 1], shape (N,), float32."""
        return self.column("p_winner")


def describe(report: LabelReport) -> str:
    """The report in one line for a terminal."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items()) or "none"
    ranges = "".join(f"; {name} in [{low:.6g}, {high:.6g}]" for name, (low, high) in report.score_ranges.items())
    fit = report.scale
    scaled = "" if fit is None else f"; scale {fit.scale:.4g} +- {fit.standard_error:.2g} fitted to {fit.pairs} pairs"
    agreement = "".join(f"; {name} agrees with people on {share:.1%}" for name, share in report.agreement.items())
    return (f"{report.kept} of {report.pairs} pairs labelled in {report.folder}; dropped: {dropped}{ranges}{scaled}"
            f"; median p_winner {report.p_winner_quantiles['0.5']:.4f}{agreement}")


def label_pairs(pairs: PairSet, scores: Mapping[str, ScoreTable], label: Label, out: Path, *,
                drop_score_ties: bool = True) -> LabelReport:
    """Write the labels of `pairs` to `out` and return the report.

    Pairs with equal scores are dropped and listed if the label uses scores, and pairs without a human choice or votes
    if it uses these. Score ranges and scales are measured over the pairs that are kept.

    Args:
        pairs: the pair set.
        scores: name -> score table, in the order in which the label reads them; empty if it reads none.
        label: see `smpo.labels`.
        out: folder of the artefact.
        drop_score_ties: drop pairs whose scores name no winner, instead of labelling them with p_winner = 1/2.

    Raises:
        DataError: the label needs scores and there are none, no pair is left, or a scale cannot be fitted.
        StaleError: the scores belong to another pair set, or `out` was made from other inputs.
    """
    out = Path(out)
    if label.needs_scores and not scores:
        raise DataError(f"label {type(label).__name__} needs a score table, got none; run `smpo score` first")
    inputs = {"pairs": pairs.fingerprint}
    for name, table in scores.items():
        check_same_pairs(table, pairs)
        inputs[f"scores.{name}"] = table.fingerprint
    settings = {"label": {"class": type(label).__name__, **asdict(label)}, "drop_score_ties": drop_score_ties}
    if begin(out, stage=STAGE, settings=settings, inputs=inputs) is not Status.DONE:
        finish(out, _write(pairs, scores, label, out, drop_score_ties), files=[LABELS_FILE, DROPPED])
    results = read_manifest(out, stage=STAGE)["results"]
    return LabelReport(
        out, len(pairs), results["kept"], results["dropped"],
        score_ranges={name: (low, high) for name, (low, high) in results["score_ranges"].items()},
        scale=None if results["scale"] is None else ScaleFit(**results["scale"]),
        agreement=results["agreement"], calibration=tuple(CalibrationBin(**row) for row in results["calibration"]),
        p_winner_quantiles=results["p_winner_quantiles"],
    )


def _write(pairs: PairSet, scores: Mapping[str, ScoreTable], label: Label, out: Path, drop_score_ties: bool
           ) -> dict[str, Any]:
    judgements = judgements_of(pairs, list(scores.values()))
    reasons = _reasons_to_drop(judgements, label, drop_score_ties)
    dropped = Counter(reason for reason in reasons if reason)
    kept = judgements.rows(torch.tensor([not reason for reason in reasons]))
    if not len(kept):
        raise DataError(f"no pair of {pairs.folder} can be labelled: {_count(dropped)}; use another label or scorer")
    fit = None
    if label.needs_scale:
        fit = fit_scale((kept.score_0[0] - kept.score_1[0]).numpy(), kept.people.numpy())
        label = label.with_scale(fit.scale)
    winner, p_winner = label(kept)
    digest = _write_files(out, pairs.pair_ids, reasons, winner, p_winner)
    return {
        "kept": len(kept),
        "dropped": dict(dropped.most_common()),
        "score_ranges": dict(zip(scores, map(list, label.score_ranges(kept)), strict=False)),
        "scorers": {name: table.identity for name, table in scores.items()},
        "scale": None if fit is None else asdict(fit),
        "agreement": _agreement(kept, list(scores)),
        "calibration": [asdict(row) for row in calibration(winner.numpy(), p_winner.numpy(), kept.people.numpy())],
        "p_winner_quantiles": _quantiles(p_winner),
        "labels_sha256": digest,
    }


def judgements_of(pairs: PairSet, tables: list[ScoreTable]) -> Judgements:
    """The judgements of the pairs, in their order; row i of the scores is from `tables[i]`."""
    missing = torch.empty(0, len(pairs), dtype=torch.float64)
    score_0, score_1 = (
        torch.stack([getattr(table, side).double() for table in tables]) if tables else missing
        for side in ("score_0", "score_1")
    )
    return Judgements(score_0, score_1, pairs.human_labels, pairs.vote_shares_0)


def _write_files(out: Path, pair_ids: tuple[str, ...], reasons: list[str], winner: Tensor, p_winner: Tensor) -> str:
    """Write the table of labels and the list of dropped pairs; the SHA-256 of the table, in hex."""
    rows = list(zip(pair_ids, reasons, strict=True))
    kept = [pair_id for pair_id, reason in rows if not reason]
    write_atomically(out / DROPPED, "".join(
        json.dumps({"pair_id": pair_id, "reason": reason}) + "\n" for pair_id, reason in rows if reason))
    columns = {"pair_id": kept, "winner": winner.tolist(), "p_winner": p_winner.tolist()}
    return write_parquet(out / LABELS_FILE, pa.table(columns, schema=LABEL_SCHEMA))


def _reasons_to_drop(judgements: Judgements, label: Label, drop_score_ties: bool) -> list[str]:
    """The reason to drop each pair, or an empty string; people's reasons go before those of scores."""
    reasons = np.full(len(judgements), "", dtype=object)
    if label.needs_scores and drop_score_ties:
        reasons[label.ties(judgements).numpy()] = "score_tie"
    if label.needs_votes:
        reasons[(judgements.vote_share_0 == 0.5).numpy()] = "vote_tie"
        reasons[judgements.vote_share_0.isnan().numpy()] = "no_votes"
    if label.needs_human:
        reasons[(judgements.human_label == 0.5).numpy()] = "human_tie"
        reasons[judgements.human_label.isnan().numpy()] = "no_human_label"
    return reasons.tolist()


def _agreement(judgements: Judgements, names: list[str]) -> dict[str, float]:
    human, shares = judgements.human_label, {}
    for name, score_0, score_1 in zip(names, judgements.score_0, judgements.score_1, strict=True):
        decided = ((human == 0) | (human == 1)) & (score_0 != score_1)
        if decided.any():
            shares[name] = ((score_0 > score_1) == (human == 1))[decided].double().mean().item()
    return shares


def _quantiles(values: Tensor) -> dict[str, float]:
    """Quantile -> value (the next lower order statistic); torch.quantile refuses more than 16 million values."""
    ordered = values.double().sort().values
    return {str(q): ordered[int(q * (len(ordered) - 1))].item() for q in QUANTILES}


def _count(dropped: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())

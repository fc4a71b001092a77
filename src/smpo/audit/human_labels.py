"""Human labels: their agreement with reward models, and contradictions among them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from smpo.evaluation.statistics import Interval, share_interval

GAP_BINS = 10


@dataclass(frozen=True)
class GapBin:
    """Agreement among the pairs whose score gap lies in [low, high], in the scorer's units."""

    low: float
    high: float
    pairs: int
    agreement: Interval


@dataclass(frozen=True)
class Agreement:
    """How often people and a scorer prefer the same image.

    Attributes:
        scorer: name of the scorer.
        pairs: pairs with a human preference and unequal scores.
        score_ties: pairs with equal scores.
        agreement: share of `pairs` with agreement, with its Wilson interval over the effective number of pairs, for
            pairs of one prompt are not independent; None where there are no such pairs.
        by_gap: agreement by tenths of `pairs`, from the smallest to the largest score gap; empty below 100 pairs.
    """

    scorer: str
    pairs: int
    score_ties: int
    agreement: Interval | None
    by_gap: tuple[GapBin, ...]


@dataclass(frozen=True)
class Contradictions:
    """Judgements of one prompt's images that no ranking can satisfy.

    Attributes:
        repeated: image pairs of one prompt that were judged more than once, ties included.
        reversed: how many of these were judged both ways (A over B and B over A).
        tied_and_decided: how many of these have both a tie and a preference.
        cyclic_prompts: prompts with an intransitive cycle of three or more images (A > B > C > A).
        cyclic_pairs: judgements in such cycles.
        prompts: prompts with a reversal or a cycle.
        judged_prompts: prompts with a human preference.
        examples: pair ids of some reversed pairs and cycles, one tuple each.
    """

    repeated: int
    reversed: int
    tied_and_decided: int
    cyclic_prompts: int
    cyclic_pairs: int
    prompts: int
    judged_prompts: int
    examples: tuple[tuple[str, ...], ...]


def agreement(
    scorer: str, score_0: np.ndarray, score_1: np.ndarray, human: np.ndarray, prompts: np.ndarray
) -> Agreement:
    """Agreement of `scorer` with people.

    Args:
        scorer: name of the scorer.
        score_0: score of image 0 of each pair, shape (n,).
        score_1: score of image 1 of each pair, shape (n,).
        human: label_0 of each pair: 1, 0, 0.5 (tie) or NaN (unlabelled), shape (n,).
        prompts: number of each pair's prompt, shape (n,), int.
    """
    gap = score_0.astype(np.float64) - score_1
    judged = ((human == 0) | (human == 1)) & (gap != 0)
    same = ((gap > 0) == (human == 1))[judged]
    if not len(same):
        return Agreement(scorer, 0, int((gap == 0).sum()), None, ())
    sizes, groups = np.abs(gap)[judged], prompts[judged]
    bins = []
    for part in np.array_split(np.argsort(sizes, kind="stable"), GAP_BINS) if len(same) >= 10 * GAP_BINS else ():
        share = share_interval(same[part], groups[part])
        bins.append(GapBin(float(sizes[part[0]]), float(sizes[part[-1]]), len(part), share))
    return Agreement(scorer, len(same), int((gap == 0).sum()), share_interval(same, groups), tuple(bins))


def contradictions(
    pair_ids: Sequence[str], images: np.ndarray, human: np.ndarray, prompts: np.ndarray, *, examples: int = 5
) -> Contradictions:
    """Contradictory human labels. Only judgements under the same prompt can contradict each other.

    Args:
        pair_ids: id of each of n pairs.
        images: number of each pair's two images, shape (n, 2), int; equal numbers are equal images.
        human: as in `agreement`.
        prompts: as in `agreement`.
        examples: number of examples of each kind.
    """
    nodes = np.unique(np.stack([np.repeat(prompts, 2), images.ravel()]), axis=1, return_inverse=True)[1].reshape(-1, 2)
    decided = np.flatnonzero((human == 0) | (human == 1))
    first_won = human[decided] == 1
    winner = np.where(first_won, nodes[decided, 0], nodes[decided, 1])
    loser = np.where(first_won, nodes[decided, 1], nodes[decided, 0])

    _, unordered = np.unique(np.sort(nodes, axis=1), axis=0, return_inverse=True)
    times = np.bincount(unordered)
    up = np.bincount(unordered[decided][winner < loser], minlength=len(times)) > 0
    down = np.bincount(unordered[decided][winner > loser], minlength=len(times)) > 0
    tied = np.bincount(unordered[np.flatnonzero(human == 0.5)], minlength=len(times)) > 0
    both = up & down

    reversed_pairs = both[unordered[decided]]
    cyclic = _in_cycles(winner[~reversed_pairs], loser[~reversed_pairs], int(nodes.max(initial=-1)) + 1)
    in_cycle = decided[~reversed_pairs][cyclic >= 0]
    contradictory = np.concatenate([decided[reversed_pairs], in_cycle])
    named = [*_grouped(pair_ids, decided[reversed_pairs], unordered[decided[reversed_pairs]], examples),
             *_grouped(pair_ids, in_cycle, cyclic[cyclic >= 0], examples)]
    return Contradictions(
        repeated=int((times > 1).sum()), reversed=int(both.sum()), tied_and_decided=int((tied & (up | down)).sum()),
        cyclic_prompts=len(np.unique(prompts[in_cycle])), cyclic_pairs=len(in_cycle),
        prompts=len(np.unique(prompts[contradictory])), judged_prompts=len(np.unique(prompts[decided])),
        examples=tuple(named),
    )


def _in_cycles(winner: np.ndarray, loser: np.ndarray, nodes: int) -> np.ndarray:
    """Strongly connected component of each edge winner -> loser; -1 for an edge between two components.

    As no edge runs both ways here, a component of several nodes has a cycle of three or more nodes.
    """
    graph = coo_array((np.ones(len(winner), dtype=bool), (winner, loser)), shape=(nodes, nodes))
    component = connected_components(graph, directed=True, connection="strong")[1]
    return np.where(component[winner] == component[loser], component[winner], -1)


def _grouped(
    pair_ids: Sequence[str], rows: np.ndarray, groups: np.ndarray, limit: int
) -> list[tuple[str, ...]]:
    """The pair ids of the first `limit` groups."""
    return [tuple(pair_ids[row] for row in rows[groups == group]) for group in np.unique(groups)[:limit]]

"""Simulated annotators who differ: python -m smpo.tiny.annotators PAIRS.jsonl OUT.jsonl --votes 5 --noise 0.2 --seed 0.

A population whose members each value the kinds of attributes differently. Every member likes the image with more of
what the prompt asked for (by the verifier), weighs it by their own taste, and votes by Bradley-Terry. What comes out
is a pair set as people would have made it: one person's choice, the share of a few people's votes, and the truth.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from smpo.core.artefacts import write_atomically
from smpo.core.checks import check_fraction, check_positive
from smpo.core.errors import ConfigError, DataError, SmpoError
from smpo.core.randomness import derive_seed
from smpo.data.images import decode_image
from smpo.data.layouts import check_columns
from smpo.tiny.prompts import parse
from smpo.tiny.verifier import verify

KINDS = ("object", "colour", "position", "size", "background")
MEMBERS = 1000
NEEDED = ("prompt", "image_0", "image_1")  # keys of a pair


@dataclass(frozen=True)
class Population:
    """The annotators.

    Attributes:
        tastes: how much each member values each of KINDS, rows > 0 that sum to 1, shape (MEMBERS, 5), float64.
        sharpness: log-odds of preferring an image that is right in everything to one that is right in nothing, > 0.
    """

    tastes: np.ndarray
    sharpness: float

    def preferences(self, advantage: np.ndarray) -> np.ndarray:
        """Each member's probability of preferring image 0 (Bradley-Terry), in (0, 1), shape (MEMBERS,).

        Args:
            advantage: see `advantage`, shape (5,).
        """
        return expit(self.sharpness * self.tastes @ advantage)


def draw_population(*, concentration: float, sharpness: float, seed: int, members: int = MEMBERS) -> Population:
    """A population with tastes from a symmetric Dirichlet distribution.

    Args:
        concentration: of the distribution, > 0: far below 1 each member cares for one kind alone, far above 1 all
            members value all kinds alike.
        sharpness: see `Population`.
        seed: of the tastes.
        members: how many annotators there are.
    """
    check_positive(concentration=concentration, sharpness=sharpness)
    rng = np.random.default_rng(derive_seed(seed, "tastes"))
    return Population(rng.dirichlet(np.full(len(KINDS), concentration), size=members), sharpness)


def advantage(verdict_0: dict[str, bool], verdict_1: dict[str, bool]) -> np.ndarray:
    """For each of KINDS, how much larger the share of right attributes is in image 0, in [-1, 1], shape (5,).

    A kind that the prompt does not name (the size of two objects) is 0: it speaks for neither image.

    Args:
        verdict_0: attribute -> whether image 0 has it, as `verifier.verify` gives it.
        verdict_1: the same for image 1.
    """
    gains: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for name, is_right in verdict_0.items():
        gains[name.rstrip(" 12")].append(int(is_right) - int(verdict_1[name]))
    return np.array([sum(gain) / len(gain) if gain else 0.0 for gain in gains.values()])


def cast_votes(preferences: np.ndarray, *, votes: int, noise: float, seed: int) -> np.ndarray:
    """Whether each of `votes` members, drawn without replacement, votes for image 0, shape (votes,), bool.

    With equal seeds the same members are drawn and would vote alike without noise, whatever `noise` is, and whom a
    low noise makes err, errs under a higher one too: noise levels differ in nothing else. More votes only add members.

    Args:
        preferences: of all members, see `Population.preferences`.
        votes: how many are asked.
        noise: probability that a vote is flipped, in [0, 1].
        seed: of this pair.
    """
    asked = np.random.default_rng(derive_seed(seed, "members")).permutation(len(preferences))[:votes]
    chooses_0 = np.random.default_rng(derive_seed(seed, "choices")).random(votes) < preferences[asked]
    errs = np.random.default_rng(derive_seed(seed, "errors")).random(votes) < noise
    return chooses_0 ^ errs


def annotate(
    lines: Sequence[dict[str, Any]], folder: Path, population: Population, *, votes: int, noise: float, seed: int
) -> list[dict[str, Any]]:
    """`lines` with what the annotators said: `label_0`, `vote_share_0` and `p_true`.

    `label_0` is the first annotator's vote alone, `vote_share_0` the share of all `votes` for image 0, and `p_true` the
    mean preference of the whole population, free of noise (for analysis; pair sets do not read it).

    Args:
        lines: pairs of the jsonl layout with prompts of the tiny world.
        folder: what their image paths are relative to.
        population: who votes.
        votes: annotators per pair; every pair has its own.
        noise: probability that a vote is flipped, in [0, 1].
        seed: of the draws of annotators and votes.

    Raises:
        ConfigError: `votes` is not in [1, MEMBERS] or `noise` not in [0, 1].
        DataError: a prompt is outside the world's grammar or an image cannot be read.
    """
    check_fraction(noise=noise)
    if not 1 <= votes <= len(population.tastes):
        raise ConfigError(f"votes must lie in [1, {len(population.tastes)}], got {votes}")
    annotated = []
    for row, line in enumerate(lines):
        scene = parse(line["prompt"])
        verdicts = [verify(decode_image(_read(folder / line[side])), scene) for side in ("image_0", "image_1")]
        preferences = population.preferences(advantage(*verdicts))
        said = cast_votes(preferences, votes=votes, noise=noise, seed=derive_seed(seed, "pair", row))
        annotated.append({
            **line, "label_0": int(said[0]), "vote_share_0": float(said.mean()), "p_true": float(preferences.mean()),
        })
    return annotated


def describe(lines: Sequence[dict[str, Any]]) -> str:
    """The annotated pairs in one line: how far one person's choice can be trusted and how split the votes are."""
    decided = [line for line in lines if line["p_true"] != 0.5]
    agrees = sum(line["label_0"] == (line["p_true"] > 0.5) for line in decided)
    agreement = f"{agrees / len(decided):.1%}" if decided else "none decided"
    spread = float(np.mean([abs(line["vote_share_0"] - 0.5) for line in lines]))
    return (f"{len(lines)} pairs; label_0 agrees with the population's majority on {agreement} of the {len(decided)} "
            f"with one; mean |vote_share_0 - 1/2| {spread:.3f}")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The pairs in a .jsonl file, as `smpo sample` writes it.

    Raises:
        DataError: there is no such file, or a line lacks prompt, image_0 or image_1.
    """
    lines = []
    for number, text in enumerate(_read(file).splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise DataError(f"{file} line {number} is not JSON ({error}); correct it") from error
        check_columns(line if isinstance(line, dict) else (), NEEDED, source=f"{file} line {number}")
        if not all(isinstance(line[key], str) for key in NEEDED):
            raise DataError(f"{file} line {number}: {', '.join(NEEDED)} must be text, got {text[:200]!r}; correct it")
        lines.append(line)
    if not lines:
        raise DataError(f"{file} holds no line; correct the path")
    return lines


def relocated(line: dict[str, Any], *, old: Path, new: Path) -> dict[str, Any]:
    """`line` with image paths relative to the folder `new` instead of `old`; they name the same files."""
    paths = {side: os.path.relpath((old / line[side]).resolve(), new.resolve()) for side in ("image_0", "image_1")}
    return {**line, **paths}


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); correct the path") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: PAIRS, OUT, --votes, --noise, --concentration, --sharpness, --seed."""
    parser = argparse.ArgumentParser(description="Let simulated annotators with different tastes vote on tiny pairs.")
    parser.add_argument("pairs", type=Path, help=".jsonl file that `smpo sample` wrote")
    parser.add_argument("out", type=Path, help=".jsonl file to write")
    parser.add_argument("--votes", type=int, default=5, help="annotators per pair")
    parser.add_argument("--noise", type=float, default=0.0, help="probability that a vote is flipped")
    parser.add_argument("--concentration", type=float, default=1.0, help="of tastes; small = very different ones")
    parser.add_argument("--sharpness", type=float, default=20.0, help="log-odds of all right against all wrong")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    try:
        population = draw_population(concentration=args.concentration, sharpness=args.sharpness, seed=args.seed)
        lines = annotate(read_lines(args.pairs), args.pairs.parent, population, votes=args.votes, noise=args.noise,
                         seed=args.seed)
    except SmpoError as error:
        parser.error(str(error))
    moved = [relocated(line, old=args.pairs.parent, new=args.out.parent) for line in lines]
    write_atomically(args.out, "".join(json.dumps(line) + "\n" for line in moved))
    print(describe(lines))


if __name__ == "__main__":
    main()

"""The demo's prompts: what the recipe `tiny-demo` needs beside the embedded models.

    python -m smpo.tiny.demo FOLDER --seed 0
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from smpo.core.artefacts import write_atomically
from smpo.tiny.prompts import sample_prompts

NUM_TRAINING = 400
NUM_HELD_OUT = 200


@dataclass(frozen=True)
class PromptFiles:
    """The two prompt files of a demo."""

    training: Path
    held_out: Path


def write_prompts(folder: Path, *, seed: int) -> PromptFiles:
    """Prompts to draw training pairs of, and held-out ones to judge the result by; the sets share no combination."""
    files = PromptFiles(folder / "training-prompts.txt", folder / "held-out-prompts.txt")
    write_atomically(files.training, "\n".join(sample_prompts(NUM_TRAINING, seed=seed, split="train")) + "\n")
    write_atomically(files.held_out, "\n".join(sample_prompts(NUM_HELD_OUT, seed=seed, split="heldout")) + "\n")
    return files


def main() -> None:
    """Command line: write the prompts of one seed."""
    parser = argparse.ArgumentParser(description="Write the demo's training and held-out prompts.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_prompts(args.folder, seed=args.seed)


if __name__ == "__main__":
    main()

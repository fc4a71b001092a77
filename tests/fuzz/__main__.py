"""`python -m tests.fuzz --seed 7 --count 2000`: look for more than the slow test does; prints what went wrong."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.fuzz.case import complaints
from tests.fuzz.domains import DOMAINS, cases_of
from tests.fuzz.world import World


def main() -> int:
    """Run the cases; the exit code says whether all went as they must."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=0, help="random cases of each domain on top of the fixed ones")
    parser.add_argument("--domain", choices=list(DOMAINS), action="append", help="default: all")
    parser.add_argument("--only", default="", help="part of the names of the cases to run")
    parser.add_argument("--random-only", action="store_true", help="leave the fixed cases out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        world = World(Path(place))
        for domain in given.domain or DOMAINS:
            started, ran, wrong = time.perf_counter(), 0, 0
            for case in cases_of(domain, seed=given.seed, count=given.count, fixed=not given.random_only):
                if given.only in case.name:
                    ran += 1
                    found = complaints(case, world, world.root)
                    wrong += bool(found)
                    for line in found:
                        print(f"[{domain}] {case.name}: {line}", flush=True)
            print(f"{domain}: {ran} cases, {wrong} wrong, {time.perf_counter() - started:.0f} s", flush=True)
            failed += wrong
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())

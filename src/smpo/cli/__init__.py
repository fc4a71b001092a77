"""The command line: parse, load, one call, print. Exit codes: 0 done, 1 failed, 2 wrong usage, 75 preempted.

Nothing heavy is imported before a verb runs, so that `smpo --help` answers at once.
"""

import sys

from smpo.cli.app import app
from smpo.errors import SmpoError

__all__ = ["main"]


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 1."""
    try:
        app()
    except SmpoError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)

"""The command line: parse, load, one call, print.

Nothing heavy is imported before a verb runs, so that `smpo --help` answers at once.
"""

import os
import sys

from smpo.cli.app import app
from smpo.cli.boundary import run_guarded

__all__ = ["main"]

NO_TELEMETRY = {
    **dict.fromkeys(
        ("HF_HUB_DISABLE_TELEMETRY", "HF_DATASETS_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"), "1"
    ),
    "GRADIO_ANALYTICS_ENABLED": "False", "WANDB_ERROR_REPORTING": "false",
}
"""What makes the libraries underneath send nothing home; a variable that is set already stays."""


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 1."""
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    sys.exit(run_guarded(app, sys.argv[1:]))

"""Silences what libraries print."""

import diffusers
import transformers


def quieten_libraries() -> None:
    """Turn off loading bars and notices of diffusers and transformers; the stages print their own progress."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.set_verbosity_error()

"""Silences what libraries print."""

import logging
import warnings

import diffusers
import transformers


def quieten_libraries() -> None:
    """Turn off loading bars, notices and deprecation warnings of libraries; the stages print their own progress."""
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+_tensor` is deprecated", FutureWarning)  # DeepSpeed's
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    logging.getLogger("DeepSpeed").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """False for DeepSpeed's notice that there is no GPU, which it prints to stdout."""
    return "unable to detect" not in record.getMessage()

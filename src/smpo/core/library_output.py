"""What libraries print."""

import logging
import warnings

import diffusers
import transformers


def quieten_libraries() -> None:
    """Turn off loading bars, notices and what only a library's authors can mend: the stages report themselves."""
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+_tensor` is deprecated", FutureWarning)  # DeepSpeed's
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    logging.getLogger("DeepSpeed").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a notice of DeepSpeed's is one: it prints to stdout that it has no GPU, unasked."""
    return "unable to detect" not in record.getMessage()

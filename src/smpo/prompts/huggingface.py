"""Prompts of a Hugging Face dataset. A separate module, because the package datasets is optional."""

from smpo.data.huggingface import open_dataset
from smpo.prompts.files import Entries, needed_columns


def read_dataset(source: str, split: str | None) -> Entries:
    """The rows of a dataset in a folder or on the hub; only the columns of prompts are read.

    Raises:
        DataError: there is no such dataset or split, or no column of prompts.
    """
    dataset = open_dataset(source, split)
    chosen = dataset.select_columns(needed_columns(dataset.column_names, source=source))
    return list(enumerate(chosen.to_list(), start=1))

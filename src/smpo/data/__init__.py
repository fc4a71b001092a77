"""Pair sets: readers of the formats in which pairs of images come, all in bounded memory."""

from typing import TYPE_CHECKING

from smpo.core.registry import Registry

if TYPE_CHECKING:
    from smpo.data.records import PairSource

TABLES = ("jsonl", "csv", "tsv", "json")
FORMATS: "Registry[PairSource]" = Registry("data.format", {
    "parquet": "smpo.data.parquet:ParquetPairs",
    "hf": "smpo.data.huggingface:HuggingFacePairs",
    **dict.fromkeys(TABLES, "smpo.data.tables:TablePairs"),
    "metadata": "smpo.data.tables:TablePairs",
    "folders": "smpo.data.folders:FolderPairs",
    "tar": "smpo.data.tars:TarPairs",
})

"""Pair sets on disk and scorers that need no weights."""

import pytest

from smpo.data.pair_set import PairSet
from smpo.preparation.pairs import prepare_pairs
from tests.data.pictures import good_row, write_parquet


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    """Ten sound pairs; even ones have label_0 = 0, odd ones 1."""
    root = tmp_path_factory.mktemp("pairs")
    write_parquet(root / "source" / "a.parquet", [good_row(index) for index in range(10)], row_group_size=3)
    prepare_pairs(str(root / "source"), root / "pairs")
    return PairSet.open(root / "pairs")



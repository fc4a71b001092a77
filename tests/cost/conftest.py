"""Ten labelled, cached pairs for the random pipeline."""

from pathlib import Path

import pytest

from tests.training.conftest import prepare, write_jsonl_pairs


@pytest.fixture(scope="package")
def artefacts(tmp_path_factory, random_sd) -> Path:
    """Folder of pairs, label and cache."""
    root = tmp_path_factory.mktemp("cost")
    return prepare(root, write_jsonl_pairs(root / "source"), random_sd, "sd")

"""The data directory that the trainings of all tests read."""

from pathlib import Path

import pytest

from tests.train.rows import write_rows


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a few rows in each file."""
    root = tmp_path_factory.mktemp("data")
    write_rows(root)
    return root

"""The embedded engine, and small models for the members of the families that need one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engines import load
from pipeline.engines.base import Engine
from pipeline.equipment import Equipment
from tests.models import checkpoints


@pytest.fixture(scope="session")
def small_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small checkpoints with random weights."""
    checkpoints.require()
    with checkpoints.small_models():
        return checkpoints.build_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def small_equipment(small_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Equipment]:
    """Small models, which may be loaded while this is in use."""
    with checkpoints.small_models():
        yield Equipment(models=small_checkpoints, measured=tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The embedded engine, which every machine has."""
    loaded = load("espeak")
    yield loaded
    loaded.close()

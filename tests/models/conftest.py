"""Small checkpoints and models for everybody here, see `checkpoints`; and the embedded engine."""

from tests.contract.conftest import engine, small_checkpoints, small_equipment

__all__ = ["engine", "small_checkpoints", "small_equipment"]

"""Small checkpoints and models for everybody here; see `checkpoints`."""

from tests.contract.conftest import small_checkpoints, small_equipment

__all__ = ["small_checkpoints", "small_equipment"]

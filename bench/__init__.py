"""Measurements, printed by `make bench`. They are no tests: nothing here fails because a machine is slow."""

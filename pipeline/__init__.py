"""Voxspool's rooms. Read `ARCHITECTURE.md` first; imports between rooms run downward only."""

__version__ = "0.1.0"

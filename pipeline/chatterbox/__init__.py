"""The one adapter that knows the package chatterbox-tts: its engines and the voice converter stand on it.

Nothing of the package's shared state leaks out of here: a voice is set for each call, randomness is
seeded for each call, and what was measured of a voice is kept under what it depends on.
"""

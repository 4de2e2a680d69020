"""Inputs by the hundred thousand: `make fuzz`.

`targets` are the ways in, `seeds` and `strategies` make inputs, `watched` holds each to its promises,
`child` runs one target in a process of its own, `__main__` prints the table. Not part of `make test`, but for
`corpus/`: what was ever found stays found.
"""

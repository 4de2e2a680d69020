"""The batched fast path of Chatterbox: many utterances at once, and the same speech as one by one.

`slots` turns text tokens into speech tokens, `flow` speech tokens into mel spectrograms, `vocoder` these
into sound. They take the weights of the package's loaded modules, and need nothing but torch to run.
Invariant: what a row says depends on that row alone, not on the rows beside it, on its place among them or
on who was there before (up to the rounding of sums, which depends on the shape of a batch).
"""

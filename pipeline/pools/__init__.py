"""Pools of workers: one Protocol (`base.WorkerPool`), here with one process a worker (`local`)."""

"""How a dropped file is found, waited for and taken over.

The scan of the inbox is the truth (`inbox`, `listing`); what the filesystem tells of changes only makes
it run sooner (`wakeup`). A file is handed on once nothing about it has changed for its quiet period
(`settle`); what is never handed on, and why, stands in `ignore`; `roots` knows whether the folder we
look at is the folder we mean.
"""

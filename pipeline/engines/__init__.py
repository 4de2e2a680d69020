"""Speech engines: one Protocol (`base.Engine`), one table (`ENGINES`), one contract test."""

"""Speech recognisers: one Protocol (`base.Transcriber`), one table, one contract test."""

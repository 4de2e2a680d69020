"""Voice converters: one Protocol (`base.Converter`), one table, one contract test."""

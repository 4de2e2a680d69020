"""Jobs: what people write (`settings`, `spec`) and what the ledger keeps (`job`)."""

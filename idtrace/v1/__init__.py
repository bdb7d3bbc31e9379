"""Generated from ``proto/idtrace/v1`` by ``make proto``; never edited."""

"""The authority for zones: admits, stores, signs denials and receipts, serves records and delegations."""

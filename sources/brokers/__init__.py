"""Message brokers: offsets are positions."""

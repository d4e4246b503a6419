"""Message brokers: what they keep is read from a position, and a resumed run goes on at the position of its checkpoint."""

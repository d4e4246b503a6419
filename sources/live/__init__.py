"""Feeds as they come: transports, and the sessions that turn messages into rows."""

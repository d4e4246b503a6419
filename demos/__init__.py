"""The three runnable pipelines, and encoders that write recordings in the true formats."""

__all__: list[str] = []

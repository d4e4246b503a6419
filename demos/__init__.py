"""The three runnable pipelines, and encoders that write recordings in the true formats."""

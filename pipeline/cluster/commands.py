"""The part of the command line that is about clusters; registering it imports nothing heavy."""

from __future__ import annotations

import argparse

from .cluster_commands import add_cluster_commands
from .job_commands import add_job_commands
from .submit_command import add_submit_command

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``submit``, ``jobs``, ``status``, ``stop``, ``logs`` and ``cluster`` with the command line's sub-parsers."""
    add_submit_command(commands)
    add_job_commands(commands)
    add_cluster_commands(commands)

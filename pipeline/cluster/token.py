"""Ray's authentication token: where it is, and making one where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..errors import PenstockError

__all__ = ["ensure_token", "find_token", "token_file"]


def token_file() -> Path:
    """The file that Ray reads the token from: ``$RAY_AUTH_TOKEN_PATH`` or ``~/.ray/auth_token``."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def find_token() -> str | None:
    """The token that Ray would use: ``$RAY_AUTH_TOKEN``, else the content of `token_file`, else None."""
    if direct := os.environ.get("RAY_AUTH_TOKEN"):
        return direct.strip()
    try:
        return token_file().read_text().strip() or None
    except OSError:
        return None


def ensure_token() -> None:
    """Have Ray write a new token to its usual place, for this user's eyes alone, if none is set."""
    if find_token() is not None:
        return
    if "RAY_AUTH_TOKEN_PATH" in os.environ:
        raise PenstockError(f"RAY_AUTH_TOKEN_PATH names {token_file()}, which holds no token; write one, or unset it")
    command = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"]
    made = subprocess.run(command, check=False, capture_output=True, text=True, umask=0o077)
    if made.returncode != 0 or find_token() is None:
        raise PenstockError(f"Ray made no token: {(made.stderr.strip().splitlines() or ['it said nothing'])[-1]}")

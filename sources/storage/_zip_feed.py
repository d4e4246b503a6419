"""What the only file of a zip archive holds: exchanges publish their days as such."""

from __future__ import annotations

import zipfile
import zlib
from typing import Any

from ...pipeline.errors import FormatError
from ._stored_file import StoredFile
from .feed import Feed
from .stored import Stored

__all__ = ["ZipFeed"]

_STEP = 1 << 18
_SHOWN = 3
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


class ZipFeed(Feed):
    """Unpacks the file in an archive of one. Raises FormatError for another number of files, and for what is no archive."""

    compression = "zip"

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        try:
            self._archive = zipfile.ZipFile(StoredFile(stored))
            files = [member for member in self._archive.infolist() if not member.is_dir()]
        except _DAMAGE as error:
            raise FormatError(f"{stored.path} begins like a zip archive but does not unpack: {error}") from None
        if len(files) != 1:
            raise FormatError(_refusal(stored.path, [member.filename for member in files]))
        self._name = files[0].filename
        self.seek(0)

    def seek(self, offset: int) -> None:
        self.error = None
        try:
            self._file: Any = self._archive.open(self._name)
        except _DAMAGE as error:
            raise FormatError(f"{self._name!r} in {self._stored.path} does not unpack: {error}") from None
        scratch = memoryview(bytearray(min(offset, _STEP)))
        while offset > 0 and (count := self.fill(scratch[: min(offset, _STEP)])):
            offset -= count

    def fill(self, view: memoryview) -> int:
        done = 0
        while done < len(view) and self.error is None:
            try:
                count = self._file.readinto(view[done : done + _STEP])
            except _DAMAGE as error:
                self.error = f"the zip archive is damaged in {self._name!r}: {error}"
                break
            if not count:
                break
            done += count
        return done

    def close(self) -> None:
        self._stored.close()


def _refusal(path: str, names: list[str]) -> str:
    if not names:
        return f"{path} is a zip archive without a file"
    shown = ", ".join(names[:_SHOWN]) + (", .." if len(names) > _SHOWN else "")
    return (
        f"{path} is a zip archive of {len(names)} files ({shown}): unpack it and read them with sources.files, "
        f"or name one, or several by a wildcard, as in 'zip://{names[0]}::{path}'"
    )

"""Files of a folder over HTTP: types, validators, ranges, and no way out of the folder.

This module owns which file a path means, and the answer to a request for it. The router passes the
path.
"""

from __future__ import annotations

import io
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from mimetypes import MimeTypes
from pathlib import Path
from typing import TypeVar, final

import trio

from .._http.headers import Headers, http_date
from .._http.values import Request, Response
from .site import Streamed

T = TypeVar("T")

#: How much of a file is read, and held, at a time.
CHUNK = 256 * 1024

#: Types of the files that pages are made of. Systems have tables of types, but those differ, and
#: some lack these.
_WEB_TYPES = {
    ".avif": "image/avif",
    ".css": "text/css",
    ".csv": "text/csv",
    ".gif": "image/gif",
    ".htm": "text/html",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".ogg": "audio/ogg",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".txt": "text/plain",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}
# Made without file names, it holds Python's own table and not the system's.
_TYPES = MimeTypes()
for _suffix, _type in _WEB_TYPES.items():
    _TYPES.add_type(_type, _suffix)


def content_type(name: str) -> str:
    """The Content-Type for a file of this name; all text is said to be UTF-8."""
    kind, encoding = _TYPES.guess_type(name)
    if kind is None or encoding is not None:  # x.tar.gz is sent as it is, not as a .tar
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


@final
class Folder:
    """Answers GET and HEAD for the files in a folder.

    Args:
        path: the folder. Symbolic links in its own name are followed.
        headers: additional fields for every file.

    Raises:
        NotADirectoryError: there is no such folder.
    """

    def __init__(self, path: str | os.PathLike[str], headers: Headers) -> None:
        self._root = Path(path).resolve()
        self._headers = headers
        if not self._root.is_dir():
            raise NotADirectoryError(f"{os.fspath(path)!r} is no folder")

    async def answer(self, request: Request, filename: str = "") -> Response | Streamed:
        """Answer a request for a file, or for the index.html of the folder within that it names."""
        found = await _in_thread(lambda: self._find(filename))
        if found is None:
            return Response(404, body="There is no such file.\n")
        if isinstance(found, _Subfolder):
            return _redirect_into_folder(request)
        return await self._answer_with(found, request)

    def _find(self, filename: str) -> _File | _Subfolder | None:
        names = filename.split("/")
        if names[-1] == "":
            names[-1] = "index.html"
        if not all(map(_is_public_name, names)):
            return None
        try:
            # Links are followed first, and their target is judged. The other way round, a link
            # could lead out of the folder.
            path = Path(os.path.realpath(self._root.joinpath(*names), strict=True))
            if not path.is_relative_to(self._root):
                return None
            status = path.stat()
        except (OSError, ValueError):  # there is no such file, or there can be no such name
            return None
        if stat.S_ISDIR(status.st_mode):
            return _Subfolder()
        # Opening a pipe would wait for its other end, and a device may have no end.
        if not stat.S_ISREG(status.st_mode):
            return None
        # HTTP has whole seconds, and a date in the future must not be sent (RFC 9110 section
        # 8.8.2.1).
        modified = min(max(0, int(status.st_mtime)), int(time.time()))
        return _File(path, names[-1], status, modified)

    async def _answer_with(self, file: _File, request: Request) -> Response | Streamed:
        # Only what may be in every response: a 304 must not describe the file that the client has.
        headers = [
            ("ETag", file.etag),
            ("Accept-Ranges", "bytes"),
            ("X-Content-Type-Options", "nosniff"),
            *(field for field in self._headers.fields if field[0].lower() not in _METADATA),
        ]
        if _precondition_failed(request.headers, file):
            return Response(412, headers, "The file has changed.\n")
        if not _is_modified(request.headers, file):
            return Response(304, headers)
        status, part = 200, range(file.size)
        if request.method == "GET" and _range_applies(request.headers, file):
            status, part = _requested_part(request.headers.get("Range", ""), file.size)
        if status == 416:
            headers.append(("Content-Range", f"bytes */{file.size}"))
            return Response(416, headers, "The file is shorter.\n")
        if status == 206:
            headers.append(("Content-Range", f"bytes {part.start}-{part.stop - 1}/{file.size}"))
        metadata = {
            "Content-Type": content_type(file.name),
            "Last-Modified": formatdate(file.modified, usegmt=True),
        }
        headers += [field for field in metadata.items() if field[0] not in self._headers]
        headers += [field for field in self._headers.fields if field[0].lower() in _METADATA]
        head = Response(status, headers)
        try:
            source = await _in_thread(lambda: FilePart(file.path, part))
        except OSError:  # it has gone since, or may not be read
            return Response(404, body="There is no such file.\n")
        return Streamed(head, len(part), source)


class _Subfolder:
    """A folder inside the folder, asked for without the slash at its end."""


@dataclass(frozen=True)
class _File:
    path: Path
    name: str
    status: os.stat_result
    modified: int

    @property
    def size(self) -> int:
        return self.status.st_size

    @property
    def etag(self) -> str:
        return f'"{self.status.st_mtime_ns:x}-{self.size:x}"'


@final
class FilePart:
    """A part of a file, read in a thread. Making one opens the file."""

    def __init__(self, path: Path, part: range) -> None:
        self._file = io.FileIO(path)
        self._file.seek(part.start)
        self._left = len(part)

    async def read(self) -> bytes:
        if not self._left:
            return b""
        data = await _in_thread(lambda: self._file.read(min(CHUNK, self._left)))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


async def _in_thread(function: Callable[[], T]) -> T:
    # A cancellation waits for the thread, or a file that it opens would never be closed. Disks do
    # not take that long.
    return await trio.to_thread.run_sync(function)


def unsafe_characters(*, windows: bool) -> frozenset[str]:
    """The characters that a name in a path may not hold.

    These are the separators of any system, and all control characters: NUL would end the name for
    the system. On Windows there are also the colon of drives and streams, the wildcards, and the
    tilde, which makes ``GIT~1`` mean ``.git``. Elsewhere those are characters like any other.
    """
    return frozenset("/\\\x7f" + (':~"*<>|?' if windows else "")).union(map(chr, range(32)))


_UNSAFE = unsafe_characters(windows=os.name == "nt")


def _is_public_name(name: str) -> bool:
    if name.startswith(".") and name != ".well-known":  # "..", and also .git and .env
        return False
    return bool(name) and _UNSAFE.isdisjoint(name)


def _redirect_into_folder(request: Request) -> Response:
    """Send the client to the path with the slash, where relative links of the index are right."""
    path, question, query = request.target.partition("?")
    # Two slashes at the start would make the next part the name of another host.
    return Response(308, {"Location": "/" + path.lstrip("/") + "/" + question + query})


# Conditions and ranges (RFC 9110 sections 13.2.2, in its order, and 14.2)…

#: Fields that describe a file rather than the response (RFC 9110 section 15.4.5).
_METADATA = {"content-type", "content-encoding", "content-language", "last-modified"}

_ETAG = re.compile(r'(W/)?("[^"]*")')
_PART = re.compile(r"([0-9]*)-([0-9]*)")


def _precondition_failed(headers: Headers, file: _File) -> bool:
    if "If-Match" in headers:
        return not _names(headers["If-Match"], file, weakly=False)
    since = http_date(headers.get("If-Unmodified-Since", ""))
    return since is not None and file.modified > since


def _is_modified(headers: Headers, file: _File) -> bool:
    if "If-None-Match" in headers:
        return not _names(headers["If-None-Match"], file, weakly=True)
    since = http_date(headers.get("If-Modified-Since", ""))
    return since is None or file.modified > since


def _range_applies(headers: Headers, file: _File) -> bool:
    """Whether the rest of the file, which the client has, is of this version and no earlier one."""
    condition = headers.get("If-Range")
    if condition is None or condition == file.etag:
        return True
    return http_date(condition) == file.modified


def _requested_part(text: str, size: int) -> tuple[int, range]:
    """The status and the part for a Range header.

    A header that is not understood is ignored, and so is one for several parts, which no browser
    asks for.
    """
    unit, _, listed = text.partition("=")
    parts = [part for part in (part.strip(" \t") for part in listed.split(",")) if part]
    asked = _PART.fullmatch(parts[0]) if unit.lower() == "bytes" and len(parts) == 1 else None
    if asked is None or not (asked[1] or asked[2]):
        return 200, range(size)
    if asked[1]:
        start, stop = _position(asked[1]), size
        if asked[2]:
            last = _position(asked[2])
            if last < start:
                return 200, range(size)
            stop = min(size, last + 1)
    else:
        start, stop = max(0, size - _position(asked[2])), size
        if not size:  # an empty file is sent whole: no Content-Range can say "nothing"
            return 200, range(0)
    return (206, range(start, stop)) if start < stop else (416, range(0))


def _position(digits: str) -> int:
    """A place in a file. No file needs more than 19 digits, and `int` is slow with many."""
    return int(digits.lstrip("0")[:19] or "0")


def _names(field: str, file: _File, *, weakly: bool) -> bool:
    if field.strip() == "*":
        return True
    return any(tag == file.etag and (weakly or not weak) for weak, tag in _ETAG.findall(field))

"""The module for browsers that comes with the package, over HTTP.

This module owns where its files are, and for how long a browser may keep them. What is in them
belongs to `live`.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import final

from .._http.headers import Headers
from .._http.values import Request, Response
from .files import Folder
from .site import Streamed

#: The module, for programs that put a site together. Its types are beside it, in ``live.d.ts``.
MODULE = Path(__file__).parents[1] / "live" / "live.js"


@final
class LiveModule:
    """Answers GET and HEAD for the module.

    Attributes:
        version: changes with the module. A browser may keep what it gets by a URL with this in it.
    """

    def __init__(self) -> None:
        self.version: str = sha256(MODULE.read_bytes()).hexdigest()[:16]
        self._newest = Folder(MODULE.parent, Headers({"Cache-Control": "no-cache"}))
        for_good = {"Cache-Control": "public, max-age=31536000, immutable"}
        self._for_good = Folder(MODULE.parent, Headers(for_good))

    async def answer(self, request: Request) -> Response | Streamed:
        is_this = request.query_params.get("v") == self.version
        folder = self._for_good if is_this else self._newest
        return await folder.answer(request, MODULE.name)

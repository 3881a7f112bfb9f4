"""How the module for browsers is served, and that it is in what is installed."""

from __future__ import annotations

import re

import pytest

from trio_ws import Response, Router
from trio_ws.live import MODULE
from trio_ws.testing import open_test_app

pytestmark = pytest.mark.autojump


async def test_a_router_serves_the_module_to_be_asked_for_each_time_or_kept_for_good() -> None:
    router = Router()
    path = router.live_module("/js/live.js")
    assert re.fullmatch(r"/js/live\.js\?v=[0-9a-f]{16}", path)
    assert router.url_for("live_module") == "/js/live.js"
    async with open_test_app(router) as app:
        plain = await app.get("/js/live.js")
        assert (plain.status, plain.body) == (200, MODULE.read_bytes())
        assert plain.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert plain.headers["Cache-Control"] == "no-cache"
        tag = plain.headers["ETag"]
        assert (await app.get("/js/live.js", {"If-None-Match": tag})).status == 304
        kept = await app.get(path)
        assert kept.body == plain.body
        assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        other = await app.get("/js/live.js?v=0123456789abcdef")  # of a page that is older, or newer
        assert other.headers["Cache-Control"] == "no-cache"
        assert (await app.post("/js/live.js")).status == 405


async def test_it_has_a_name_and_hooks_as_other_routes() -> None:
    router = Router()
    router.live_module("/live.js", name="live", before=lambda request: Response(403))
    assert router.url_for("live") == "/live.js"
    async with open_test_app(router) as app:
        assert (await app.get("/live.js")).status == 403
    with pytest.raises(ValueError, match="starts with a slash"):
        router.live_module("live.js")

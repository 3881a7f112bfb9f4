"""Files over HTTP: types, validators, ranges, and no way out of the folder."""

from __future__ import annotations

import os
import time
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio

from tests.helpers import HOST, PATIENCE, open_server
from tests.web.web_helpers import HTTPClient, http, open_site
from trio_ws import Response, Router
from trio_ws._web.files import CHUNK, content_type, unsafe_characters

TEXT = b"0123456789"
#: A Friday, in seconds since 1970.
MODIFIED = 1_000_000_000
DATE = formatdate(MODIFIED, usegmt=True)
EARLIER = formatdate(MODIFIED - 1, usegmt=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to be served, beside a secret."""
    (tmp_path / "secret.txt").write_bytes(b"secret")
    public = tmp_path / "public"
    (public / "sub").mkdir(parents=True)
    (public / "empty").mkdir()
    (public / ".git").mkdir()
    (public / ".well-known").mkdir()
    for name, data in {
        "a.txt": TEXT,
        "empty.txt": b"",
        "with space é.html": b"<p>",
        "large.bin": bytes(range(256)) * 4096 * 3,
        "index.html": b"<p>index",
        "sub/index.html": b"<p>sub",
        ".git/config": b"secret",
        ".env": b"secret",
        ".well-known/security.txt": b"Contact: us",
    }.items():
        (public / name).write_bytes(data)
        os.utime(public / name, (MODIFIED, MODIFIED))
    (public / "inside").symlink_to(public / "a.txt")
    (public / "outside.txt").symlink_to(tmp_path / "secret.txt")
    (public / "outside").symlink_to(tmp_path)
    (public / "broken").symlink_to(tmp_path / "none")
    (public / "loop").symlink_to(public / "loop")
    os.mkfifo(public / "pipe")
    return public


def site(folder: Path, **how: Any) -> Router:
    router = Router()
    router.static("/static", folder, **how)
    return router


async def get(folder: Path, name: str, method: str = "GET", **fields: Any) -> Any:
    async with open_site(site(folder)) as (_, client):
        response = await client.ask(http(f"{method} /static/{name}", **fields))
        again = await client.ask(http("GET /static/a.txt"))
        assert again.body == TEXT, "the connection goes on"
        return response


# What there is…


async def test_a_file_comes_with_its_type_length_and_validators(folder: Path) -> None:
    response = await get(folder, "a.txt")
    assert (response.status, response.body) == (200, TEXT)
    headers = response.headers
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Content-Length"] == "10"
    assert headers["Last-Modified"] == DATE
    assert headers["ETag"].startswith('"')
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("empty.txt", b""),
        ("with%20space%20%C3%A9.html", b"<p>"),
        ("", b"<p>index"),
        ("sub/", b"<p>sub"),
        ("sub/index.html", b"<p>sub"),
        ("inside", TEXT),
        (".well-known/security.txt", b"Contact: us"),
        ("a.txt?v=2", TEXT),
        ("%61.txt", TEXT),
        ("large.bin", bytes(range(256)) * 4096 * 3),
    ],
)
async def test_a_file_in_the_folder_is_served(folder: Path, name: str, body: bytes) -> None:
    response = await get(folder, name)
    assert (response.status, response.body) == (200, body)
    head = await get(folder, name, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("character", ':?"*<>|~;&=%#')
async def test_a_character_of_a_file_s_name_is_like_any_other(folder: Path, character: str) -> None:
    name = f"12{character}30.txt"
    (folder / name).write_bytes(TEXT)
    for asked in {quote(name), name} - {"12?30.txt", "12#30.txt", "12%30.txt"}:
        response = await get(folder, asked)
        assert (response.status, response.body) == (200, TEXT)
    (folder / f"a{character}b").mkdir()
    response = await get(folder, quote(f"a{character}b"))
    assert response.headers["Location"] == f"/static/{quote(f'a{character}b')}/"


def test_windows_gives_some_characters_a_meaning() -> None:
    assert unsafe_characters(windows=True) - unsafe_characters(windows=False) == {*':~"*<>|?'}
    assert unsafe_characters(windows=False) >= {"/", "\\", "\0", "\n", "\x7f"}


async def test_a_folder_without_its_slash_is_redirected(folder: Path) -> None:
    response = await get(folder, "sub?a=b")
    assert (response.status, response.headers["Location"]) == (308, "/static/sub/?a=b")
    response = await get(folder, "/sub")
    assert response.status == 404
    async with open_site(site(folder)) as (_, client):
        response = await client.ask(http("GET //static/sub"))
        assert (response.status, response.headers["Location"]) == (308, "/static/sub/")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.JS", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.wasm", "application/wasm"),
        ("a.svg", "image/svg+xml"),
        ("a.webp", "image/webp"),
        ("a.woff2", "font/woff2"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.tar.gz", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_the_type_is_that_of_the_web_whatever_the_system_thinks(name: str, expected: str) -> None:
    assert content_type(name) == expected


async def test_headers_of_one_s_own_are_added(folder: Path) -> None:
    how = {"Cache-Control": "max-age=60", "Content-Type": "text/x-mine"}
    async with open_site(site(folder, headers=how)) as (_, client):
        response = await client.ask(http("GET /static/a.txt"))
        assert response.headers["Cache-Control"] == "max-age=60"
        assert response.headers.get_all("Content-Type") == ("text/x-mine",)
        none = await client.ask(http("GET /static/a.txt", If_None_Match="*"))
        assert (none.status, none.headers["Cache-Control"]) == (304, "max-age=60")
        failed = await client.ask(http("GET /static/a.txt", If_Match='"x"'))
        assert (failed.status, failed.headers["Cache-Control"]) == (412, "max-age=60")
        assert failed.headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_files_may_be_at_the_root_and_behind_a_hook(folder: Path) -> None:
    router = Router()
    router.static("/", folder, before=lambda asked: Response(403) if asked.query else None)
    router.get("/page")(lambda request: "page")
    async with open_site(router) as (_, client):
        assert (await client.ask(http("GET /"))).body == b"<p>index"
        assert (await client.ask(http("GET /a.txt"))).body == TEXT
        assert (await client.ask(http("GET /page"))).body == b"page"
        assert (await client.ask(http("GET /a.txt?x"))).status == 403
        assert (await client.ask(http("POST /a.txt"))).headers["Allow"] == "GET, HEAD, OPTIONS"
    assert router.url_for("static", filename="sub/a b.js") == "/sub/a%20b.js"


# What there is not…

ESCAPES = [
    "../secret.txt",
    "..",
    "../",
    ".",
    "sub/../a.txt",
    "sub/../../secret.txt",
    "%2e%2e/secret.txt",
    "%2E./secret.txt",
    "..%2fsecret.txt",
    "%2e%2e%2fsecret.txt",
    "%252e%252e/secret.txt",
    "..%5csecret.txt",
    "..\\secret.txt",
    "sub%5c..%5ca.txt",
    "..%c0%afsecret.txt",
    "%c0%ae%c0%ae/secret.txt",
    "%uff0e%uff0e/secret.txt",
    "%EF%BC%8E%EF%BC%8E/secret.txt",
    "....//secret.txt",
    "..;/secret.txt",
    "%2fetc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "C:/windows/win.ini",
    "a.txt%00",
    "a.txt%00.html",
    "%00",
    "a.txt%0a",
    "a.txt/",
    "a.txt/index.html",
    "a.txt::$DATA",
    "outside.txt",
    "outside/secret.txt",
    "broken",
    "loop",
    "pipe",
    "empty",
    "empty/",
    ".env",
    ".git/config",
    ".git/",
    "none.txt",
    "x" * 5000,
    "a/" * 2000,
    "~/a.txt",
    "%ff%fe",
]


@pytest.mark.parametrize("name", ESCAPES)
async def test_a_path_that_is_not_in_the_folder_is_404(folder: Path, name: str) -> None:
    async with open_site(site(folder)) as (_, client):
        response = await client.ask(http(f"GET /static/{name}"))
        # An existing folder is redirected to its slash, and there is nothing there.
        if name == "empty":
            assert response.status == 308
            response = await client.ask(http("GET /static/empty/"))
        assert response.status == 404, response.body
        assert b"secret" not in response.body
        assert (await client.ask(http("GET /static/a.txt"))).body == TEXT


async def test_curl_finds_no_way_out_either(folder: Path) -> None:
    async with open_server(site(folder)) as server:
        base = f"http://{HOST}:{server.port}/static"
        for name in ("../secret.txt", "%2e%2e%2fsecret.txt", "..%5csecret.txt", "outside.txt"):
            command = ["curl", "-sS", "--path-as-is", "-w", "%{http_code}", f"{base}/{name}"]
            result = await trio.run_process(command, capture_stdout=True)
            assert result.stdout.endswith(b"404")


async def test_a_file_that_may_not_be_read_is_404(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(site(folder)) as (_, client):
        (folder / "a.txt").chmod(0)
        if os.geteuid() == 0:  # root may read everything: take it away between the two looks
            find = Path.stat

            def stat_and_remove(path: Path, **how: Any) -> os.stat_result:
                found = find(path, **how)
                if path.name == "a.txt":
                    path.unlink(missing_ok=True)
                return found

            monkeypatch.setattr(Path, "stat", stat_and_remove)
        assert (await client.ask(http("GET /static/a.txt"))).status == 404


# Conditions and ranges…


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"If_None_Match": "{etag}"}, 304),
        ({"If_None_Match": "W/{etag}"}, 304),
        ({"If_None_Match": '"x", {etag}'}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"x"'}, 200),
        ({"If_None_Match": "{etag}", "If_Modified_Since": EARLIER}, 304),
        ({"If_None_Match": '"x"', "If_Modified_Since": DATE}, 200),
        ({"If_Modified_Since": DATE}, 304),
        ({"If_Modified_Since": EARLIER}, 200),
        ({"If_Modified_Since": "yesterday"}, 200),
        ({"If_Modified_Since": "Sunday, 09-Sep-01 01:46:40 GMT"}, 304),
        ({"If_Modified_Since": "Sun Sep  9 01:46:40 2001"}, 304),
        ({"If_Modified_Since": DATE.replace("GMT", "-0000")}, 200),
        ({"If_Modified_Since": f"{DATE}, {DATE}"}, 200),
        ({"If_Unmodified_Since": f"{EARLIER}, {EARLIER}"}, 200),
        ({"If_Match": "{etag}"}, 200),
        ({"If_Match": "W/{etag}"}, 412),
        ({"If_Match": '"x"'}, 412),
        ({"If_Match": "*"}, 200),
        ({"If_Unmodified_Since": DATE}, 200),
        ({"If_Unmodified_Since": EARLIER}, 412),
        ({"If_None_Match": "{etag}", "Range": "bytes=0-1"}, 304),
    ],
)
async def test_a_condition_decides(folder: Path, fields: dict[str, str], status: int) -> None:
    etag = (await get(folder, "a.txt")).headers["ETag"]
    fields = {name: value.replace("{etag}", etag) for name, value in fields.items()}
    response = await get(folder, "a.txt", "GET", **fields)
    assert response.status == status
    assert response.headers["ETag"] == etag
    if status == 304:
        described = {"Content-Length", "Content-Type", "Last-Modified", "Date", "Server"}
        assert described & {*response.headers} == {"Date", "Server"}, "the client has the rest"


#: Dates for which no parser was made.
ODD_DATES = [
    "Mon, 01 Jan 2001 00:00:00 +99999999999999999999",
    "Mon, 01 Jan 2001 00:00:00 +9999",
    f"Mon, 01 Jan {'9' * 30} 00:00:00 GMT",
    "Mon, 01 Jan 0000 00:00:00 GMT",
    "Mon, 31 Feb 2001 00:00:00 GMT",
    "Mon, 01 Jan 2001 25:61:61 GMT",
    "Mon, 01 Jan 2001 " + "0" * 5000 + ":00:00 GMT",
    "Mon, 01 Jan ٢٠٠١ 00:00:00 GMT".encode().decode("latin-1"),
    "-" * 5000,
    "",
]


@pytest.mark.parametrize("date", ODD_DATES, ids=range(len(ODD_DATES)))
@pytest.mark.parametrize("name", ["If_Modified_Since", "If_Unmodified_Since", "If_Range"])
async def test_a_date_that_is_none_is_passed_over(folder: Path, name: str, date: str) -> None:
    asked = http("GET /static/a.txt", b"", **{name: date, "Range": "bytes=0-1"})
    async with open_site(site(folder), on_handler_error="propagate") as (_, client):
        response = await client.ask(asked)
        assert response.status == (200 if name == "If_Range" else 206)


@pytest.mark.parametrize("modified", [2**40, 4_000_000_000, -1, -(2**40)])
async def test_a_file_from_another_time_was_changed_between_1970_and_now(
    folder: Path, modified: int
) -> None:
    os.utime(folder / "a.txt", (modified, modified))
    started = int(time.time())
    response = await get(folder, "a.txt")
    said = parsedate_to_datetime(response.headers["Last-Modified"]).timestamp()
    assert said == 0 or started <= said <= time.time()
    assert (said == 0) == (modified < 0)


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ("bytes=0-0", 206, b"0"),
        ("bytes=2-4", 206, b"234"),
        ("Bytes=7-", 206, b"789"),
        ("bytes=7-100", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=-30", 206, TEXT),
        ("bytes=9-9", 206, b"9"),
        ("bytes=10-", 416, None),
        ("bytes=10-20", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=999999999999999999-", 416, None),
        ("bytes=4-2", 200, TEXT),
        ("bytes=-", 200, TEXT),
        ("bytes= 2-4 ,, ", 206, b"234"),
        ("bytes=,2-4", 206, b"234"),
        ("bytes =2-4", 200, TEXT),
        ("bytes=", 200, TEXT),
        ("bytes=2-" + "9" * 5000, 206, b"23456789"),
        ("bytes=" + "0" * 5000 + "2-4", 206, b"234"),
        ("bytes=-" + "9" * 5000, 206, TEXT),
        ("bytes=" + "9" * 5000 + "-", 416, None),
        ("bytes=0-1,3-4", 200, TEXT),
        ("bytes=a-b", 200, TEXT),
        ("lines=0-1", 200, TEXT),
    ],
)
async def test_a_range_is_a_part(folder: Path, asked: str, status: int, body: bytes | None) -> None:
    response = await get(folder, "a.txt", "GET", Range=asked)
    assert response.status == status
    if body is not None:
        assert response.body == body
        assert response.headers["Content-Length"] == str(len(body))
    if status == 206:
        start = TEXT.index(body or b"")
        stop = start + len(body or b"") - 1
        assert response.headers["Content-Range"] == f"bytes {start}-{stop}/10"
    elif status == 416:
        assert response.headers["Content-Range"] == "bytes */10"


@pytest.mark.parametrize(
    ("condition", "status"),
    [("{etag}", 206), ("W/{etag}", 200), ('"x"', 200), (DATE, 206), (EARLIER, 200), ("x", 200)],
)
async def test_a_part_is_only_of_the_file_that_the_client_has(
    folder: Path, condition: str, status: int
) -> None:
    etag = (await get(folder, "a.txt")).headers["ETag"]
    condition = condition.replace("{etag}", etag)
    response = await get(folder, "a.txt", "GET", Range="bytes=1-2", If_Range=condition)
    assert response.status == status


async def test_head_has_no_part(folder: Path) -> None:
    response = await get(folder, "a.txt", "HEAD", Range="bytes=1-2")
    assert (response.status, response.headers["Content-Length"]) == (200, "10")


async def test_an_empty_file_has_no_part(folder: Path) -> None:
    response = await get(folder, "empty.txt", "GET", Range="bytes=0-")
    assert (response.status, response.headers["Content-Range"]) == (416, "bytes */0")
    response = await get(folder, "empty.txt", "GET", Range="bytes=-5")
    assert (response.status, response.body) == (200, b"")


async def test_another_file_of_the_same_size_has_another_etag(folder: Path) -> None:
    before = (await get(folder, "a.txt")).headers["ETag"]
    os.utime(folder / "a.txt", ns=(MODIFIED * 10**9, MODIFIED * 10**9 + 1))
    assert (await get(folder, "a.txt")).headers["ETag"] != before


# While it is sent…


async def test_a_file_that_shrinks_while_it_is_sent_does_not_look_complete(folder: Path) -> None:
    size = (folder / "large.bin").stat().st_size
    async with open_server(site(folder)) as server:
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            await stream.send_all(http("GET /static/large.bin"))
            data = bytes(await stream.receive_some(1000))
            os.truncate(folder / "large.bin", CHUNK)
            async for piece in stream:
                data += piece
            head, _, body = data.partition(b"\r\n\r\n")
            assert f"Content-Length: {size}".encode() in head
            assert CHUNK <= len(body) < size


def open_files() -> set[str]:
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return {os.readlink(link) for link in links if link.exists()}


async def test_a_client_that_leaves_leaves_no_file_open(folder: Path) -> None:
    async with open_server(site(folder)) as server:
        for _ in range(3):
            stream = await trio.open_tcp_stream(HOST, server.port)
            await stream.send_all(http("GET /static/large.bin"))
            await stream.receive_some(1000)
            await stream.aclose()
        with trio.fail_after(PATIENCE):
            while server.statistics().http_connections:
                await trio.sleep(0.01)
        assert not [name for name in open_files() if name.endswith("large.bin")]
        async with await trio.open_tcp_stream(HOST, server.port) as stream:
            assert (await HTTPClient(stream).ask(http("GET /static/a.txt"))).body == TEXT

"""The command line: mistakes are said in one line, and every limit is an option."""

from __future__ import annotations

import ast
import compileall
import gc
import inspect
import itertools
import shutil
import socket
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import trio

import trio_ws
from tests.command.cli_helpers import APPLICATION, run
from tests.helpers import HOST
from trio_ws import _options
from trio_ws._command.limits import LIMITS
from trio_ws._options import ListenerOptions


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with nothing in it, from which modules can be imported and forgotten."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    thresholds = gc.get_threshold()
    yield tmp_path
    gc.set_threshold(*thresholds)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


# ---------------------------------------------------------------------------
# A mistake is told in one line
# ---------------------------------------------------------------------------


WRONG = """
import contextlib

NUMBER = 3
integer = int

class Class:
    def __init__(self, ws): ...

async def two(ws, other): ...
async def none(): ...
async def generator(ws): yield

def plain(): return 3
def not_async(ws): ws.aclose()

@contextlib.asynccontextmanager
async def yields_nothing(): yield

@contextlib.asynccontextmanager
async def yields_two(): yield two

@contextlib.asynccontextmanager
async def yields_not_async(): yield not_async
"""


@pytest.mark.parametrize(
    ("application", "message"),
    [
        ("wrong", "'wrong' does not name an application: write module:attribute, as in chat:h"),
        ("wrong.py:x", "there is no module 'wrong.py'"),
        ("./wrong:x", "'./wrong:x' does not name an application"),
        ("wrong:", "'wrong:' does not name an application"),
        ("nowhere:x", "there is no module 'nowhere', neither here nor installed"),
        ("nowhere.at.all:x", "there is no module 'nowhere', neither here nor installed"),
        ("wrong:other", "'wrong' has no 'other'"),
        ("wrong:Class.other", "'wrong' has no 'Class.other'"),
        ("wrong:NUMBER", "wrong:NUMBER is 3, and not a handler, which is an async function of one"),
        ("wrong:Class", "wrong:Class takes neither one argument, as a handler does, nor none"),
        ("wrong:two", "wrong:two takes neither one argument"),
        ("wrong:none", "wrong:none takes neither one argument"),
        ("wrong:generator", "wrong:generator has a yield in it"),
        ("wrong:plain", "wrong:plain takes no argument, so it should give an async context mana"),
        ("wrong:integer", "wrong:integer takes no argument, so it should give an async context"),
        ("wrong:yields_nothing", "wrong:yields_nothing should yield the handler"),
        ("wrong:yields_two", "wrong:yields_two should yield the handler"),
        ("wrong:not_async", "wrong:not_async: a handler is an async function of one WebSocket: ma"),
        ("wrong:yields_not_async", "wrong:yields_not_async: a handler is an async function of one"),
    ],
)
def test_an_application_that_is_none_is_said_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], application: str, message: str
) -> None:
    (here / "wrong.py").write_text(WRONG, "utf-8")
    assert run("serve", application, "--port", "0") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"trio-ws: {message}")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--reload", "--workers", "2"], 2, "--reload runs one process"),
        (["--unix", "x", "--port", "1"], 2, "--unix takes the place of --host and --port"),
        (["--keyfile", "x"], 2, "--keyfile needs --certfile"),
        (["--client-ca", "x"], 2, "--client-ca needs --certfile"),
        (["--proxy-header", "Forwarded"], 2, "--proxy-header needs --trusted-proxy"),
        (["--trusted-proxy", "x"], 2, "a trusted proxy is an address, a network like '10.0.0.0/8'"),
        (["--subprotocol", "a b"], 2, "'a b' is not a subprotocol name"),
        (["--port", "65536"], 2, "'65536' is not a whole number from 0 to 65535"),
        (["--port", "http"], 2, "'http' is not a whole number from 0 to 65535"),
        (["--workers", "0"], 2, "'0' is not a whole number from 1 to 1000"),
        (["--start-timeout", "0"], 2, "0 seconds are too short for anything"),
        (["--start-timeout", "nan"], 2, "'nan' is not a time"),
        (["--drain", "inf"], 2, "this takes a number of seconds that is not inf"),
        (["--drain", "-1"], 2, "'-1' is not a time"),
        (["--drain", "1", "--reload"], 2, "--reload restarts without waiting: leave --drain out"),
        (["--ready-path", "ready"], 2, "'ready' is not the path of a URL, like /ready"),
        (["--health-path", "/health?x"], 2, "'/health?x' is not the path of a URL, like /ready"),
        (["--grace-period", "long"], 2, "'long' is not a number"),
        (["--grace-period", "-1"], 2, "grace_period is greater than 0 (math.inf for no limit)"),
        (["--certfile", "nowhere"], 1, "cannot use the certificate nowhere: "),
        (["--certfile", "a", "--keyfile", "b"], 1, "cannot use the certificate a with b: "),
        (["--host", ""], 2, "the host is empty"),
        (["--host", "[::1]"], 2, "give an IPv6 address without brackets here, like '::1'"),
        (["--host", "localhost:80"], 2, "give the port by itself"),
        (["--unix", ""], 2, "the path is empty"),
        (["--certfile", ""], 2, "the path is empty"),
        (["--origin", "example.org"], 2, "an origin is written as browsers send it"),
        (["--host", "no host"], 1, "cannot find the host 'no host': "),
        (["--host", "a" * 64], 1, "cannot find the host 'aaaa"),
        (["--host", "192.0.2.1"], 1, "cannot listen on port 8765 of 192.0.2.1: "),
        (["--unix", "chat.py"], 1, "cannot listen on chat.py: Address already in use"),
        (["--unix", "no/where"], 1, "cannot listen on no/where: No such file or directory"),
    ],
)
def test_wrong_arguments_are_said_in_one_line(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    (here / "chat.py").write_text(APPLICATION, "utf-8")
    assert run("serve", "chat:handler", *arguments) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trio-ws")
    assert message in line


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--header=nonsense", "'nonsense' has no colon"),
        ("--header=Upgrade: x", "the header 'Upgrade' belongs to the handshake"),
        ("--wait=-1", "'-1' is not a time"),
        ("--wait=nan", "'nan' is not a time"),
        ("--header=@nowhere", "cannot read 'nowhere': No such file or directory"),
        ("--auth=@\0", "is no file of text in UTF-8"),
        ("--auth=me", "there is no colon between a user and a password"),
        ("--key=k", "--key needs --cert"),
        ("--expect=(", "'(' is not a regular expression: "),
        ("--count=0", "'0' is not a whole number from 1 to 1000000000"),
        ("--timeout=1", "--timeout is for --expect and --count"),
        ("--prot=80", "trio-ws connect: unrecognized arguments: --prot=80 (trio-ws connect --help"),
        ("--insecure", "--cafile, --insecure and --cert are for wss:// URLs"),
        ("--cafile=", "the path is empty"),
        ("--unix=", "the path is empty"),
        ("--proxy=ftp://me:secret@a", "proxy=ftp://***@a: the URL of a proxy starts with one of"),
    ],
)
def test_wrong_arguments_of_connect_are_said_in_one_line(
    capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    assert run("connect", "ws://localhost", option) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trio-ws")
    assert message in line


def test_one_authorization_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("connect", "ws://a", "--header=authorization: x", "--bearer=y") == 2
    assert "more than one Authorization header" in capsys.readouterr().err.splitlines()[-1]


def test_a_proxy_of_the_environment_that_cannot_be_used_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WS_PROXY", "ftp://me:secret@a")
    assert run("connect", "ws://server.example") == 2
    assert "trio-ws: WS_PROXY=ftp://***@a: the URL of" in capsys.readouterr().err
    monkeypatch.setenv("WS_PROXY", "socks5://a")
    monkeypatch.setitem(sys.modules, "trio_ws._client.socks", None)
    assert run("connect", "ws://server.example") == 1
    assert capsys.readouterr().err == (
        "trio-ws: the proxy of WS_PROXY=socks5://a needs python-socks: pip install "
        '"trio-ws[proxy]", or give --proxy none\n'
    )


@pytest.mark.parametrize("command", [["serve", "chat:handler"], ["connect", "wss://localhost"]])
def test_a_file_with_no_certificates_is_said_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    (here / "empty").touch()
    option = "--certfile" if command[0] == "serve" else "--cafile"
    assert run(*command, option, "empty") == 1
    assert capsys.readouterr().err.startswith("trio-ws: cannot use the ")


def test_a_certificate_of_a_client_that_is_none_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("connect", "wss://localhost", "--cert", "nowhere", "--key", "nowhere") == 1
    assert capsys.readouterr().err.startswith("trio-ws: cannot use the certificate nowhere with")


@pytest.mark.parametrize("what", ["--workers=2", "--reload", ""])
def test_a_port_that_is_taken_is_said_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """Also where it could be shared: who listens there would get some of our connections."""
    (here / "chat.py").write_text(APPLICATION, "utf-8")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ["--port", str(port), "--host", HOST, *([what] if what else [])]
        assert run("serve", "chat:handler", *options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    where = f"port {port} of {HOST}"
    assert line == (
        f"trio-ws: cannot listen on {where}: Address already in use; "
        "try another --port, or 0 for any"
    )


def test_a_module_that_raises_is_shown_from_its_first_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "broken.py").write_text("import json\njson.loads('{')\n", "utf-8")
    assert run("serve", "broken:handler") == 1
    first, file, code, *_, error, last = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert "broken.py" in file
    assert code.strip() == "json.loads('{')"
    assert error.startswith("json.decoder.JSONDecodeError: ")
    assert last == "trio-ws: 'broken' cannot be imported"


def test_a_module_that_serves_while_it_is_imported_is_told_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "program.py").write_text(
        """
import trio
from trio_ws import serve_websocket

async def handler(ws):
    pass

trio.run(serve_websocket, handler, "127.0.0.1", 0)
"""
    )
    assert run("serve", "program:handler") == 1
    *_, error, last = capsys.readouterr().err.splitlines()
    assert error == (
        "RuntimeError: 'program' calls serve_websocket() while it is imported: put its trio.run(…) "
        "under if __name__ == '__main__':"
    )
    assert last == "trio-ws: 'program' cannot be imported"


def test_a_module_that_lacks_another_is_shown_with_its_traceback(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "lacking.py").write_text("import nowhere\n", "utf-8")
    assert run("serve", "lacking:handler") == 1
    assert "ModuleNotFoundError: No module named 'nowhere'" in capsys.readouterr().err


FAILING = """
import contextlib, trio
from chat import handler

@contextlib.asynccontextmanager
async def before():
    raise OSError("no database")
    yield

@contextlib.asynccontextmanager
async def after():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        yield handler

@contextlib.asynccontextmanager
async def inside():
    async with trio.open_nursery():
        yield 3

async def fail():
    raise OSError("the database is gone")
"""


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("before", 1, ["OSError: no database", "trio-ws: failing:before failed"]),
        ("after", 1, ["OSError: the database is gone", "trio-ws: failing:after failed"]),
        ("inside", 2, ["trio-ws: failing:inside should yield the handler"]),
    ],
)
def test_an_application_that_fails_ends_the_server(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, status: int, told: list[str]
) -> None:
    (here / "chat.py").write_text(APPLICATION, "utf-8")
    (here / "failing.py").write_text(FAILING, "utf-8")
    assert run("serve", f"failing:{name}", "--port", "0") == status
    error = capsys.readouterr().err
    for text in told:
        assert text in error


def test_ctrl_c_while_the_application_is_imported_is_130_and_quiet(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "slow.py").write_text("import signal; signal.raise_signal(signal.SIGINT)", "utf-8")
    assert run("serve", "slow:handler") == 130
    assert capsys.readouterr().err == ""


def test_a_mistake_of_our_own_keeps_its_traceback(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "chat.py").write_text(APPLICATION, "utf-8")

    def fail(*arguments: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(trio, "run", fail)
    with pytest.raises(ZeroDivisionError):
        run("serve", "chat:handler")


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("--workers=2", "sockets to inherit"),
        ("--reload", "sockets to inherit"),
        ("--unix=socket", "Unix sockets"),
    ],
)
def test_what_the_system_does_not_have_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str, what: str
) -> None:
    monkeypatch.setattr("trio_ws._command.serve.CAN_PASS_SOCKETS", False)
    monkeypatch.setattr("trio_ws._command.serve.HAS_UNIX", False)
    assert run("serve", "chat:handler", option) == 2
    assert f"{what}, which this system does not have" in capsys.readouterr().err


# ---------------------------------------------------------------------------
# The limits, and where they come from
# ---------------------------------------------------------------------------


def test_every_limit_of_a_server_is_an_option_and_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("serve", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for told in (
        "--max-message-size N Largest message accepted, in bytes of payload (default: 1048576)",
        "--grace-period N Seconds that handlers may go on at shutdown before they are cancelled",
        "direction for this many seconds is closed with 1000 (default: inf)",
        "--ping-interval N A peer that has been silent for this many seconds is sent a ping",
    ):
        assert told in text
    for name in ("max_connections", "close_timeout", "max_queued_bytes", "max_lifetime"):
        assert f"--{name.replace('_', '-')} N" in text


def first_sentences() -> dict[str, str]:
    """The first sentence that `_options` has below each limit of a server."""
    found: dict[str, str] = {}
    classes = [
        node
        for node in ast.parse(inspect.getsource(_options)).body
        if isinstance(node, ast.ClassDef)
    ]
    for node in classes:
        for option, below in itertools.pairwise(node.body):
            if isinstance(option, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = " ".join(str(ast.literal_eval(below.value)).split())
                found[ast.unparse(option.target)] = text.partition(".")[0].replace("`", "")
    limits = [option.name for option in fields(ListenerOptions) if str(option.type) == "float"]
    return {name: found[name] for name in limits}


def test_the_help_of_a_limit_is_the_first_sentence_of_its_description() -> None:
    assert first_sentences() == LIMITS, "copy it from _options.py to _command/limits.py"


def test_the_help_needs_no_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled without docstrings (-OO), and in an archive."""
    package = tmp_path / "source" / "trio_ws"
    shutil.copytree(Path(trio_ws.__file__).parent, package)
    assert compileall.compile_dir(package, quiet=1, legacy=True, optimize=2)
    archive = tmp_path / "trio_ws.zip"
    with zipfile.ZipFile(archive, "w") as compiled:
        for file in package.rglob("*.pyc"):
            compiled.write(file, file.relative_to(package.parent))
    monkeypatch.setenv("PYTHONPATH", str(archive))
    monkeypatch.setenv("COLUMNS", "80")
    code = "import trio_ws; print(trio_ws.__file__); import trio_ws.__main__"
    answer = subprocess.run(
        [sys.executable, "-OO", "-c", code, "serve", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    where, _, text = answer.stdout.partition("\n")
    assert where == str(archive / "trio_ws" / "__init__.pyc")
    assert run("serve", "--help") == 0
    assert text == capsys.readouterr().out


def test_the_script_is_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["scripts"] == {"trio-ws": "_trio_ws_script:main"}
    assert run("--version") == 0
    assert capsys.readouterr().out == f"trio-ws {trio_ws.__version__}\n"

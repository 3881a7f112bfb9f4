"""Five ways to say who one is: a password, a bearer token, a cookie, and a token among the
subprotocols or in the first message.

Run client.py beside it.
"""

import argparse
import hashlib
import secrets
import signal
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import trio

from trio_ws import (
    CloseCode,
    Request,
    Response,
    Router,
    Username,
    WebSocket,
    WebSocketServer,
    basic_auth,
    serve_websocket,
)


@dataclass(frozen=True)
class User:
    """Who is at the other end: what handlers find in their context."""

    name: str


def fingerprint(secret: str) -> str:
    """What of a token is kept. A look-up by it tells nothing by the time that it takes."""
    return hashlib.sha256(secret.encode()).hexdigest()


PASSWORDS = {"ada": "lovelace"}
TOKENS = {fingerprint("token-of-ada"): User("ada")}
SESSIONS: dict[str, User] = {}

router = Router()


# A password, as browsers ask for it and clients put it into the URL.


@router.websocket("/basic", before=basic_auth(PASSWORDS, realm="example"))
async def basic(ws: WebSocket) -> None:
    await ws.send(f"hello {ws.context[Username]}, you know the password")


# A token in the Authorization header: for programs, because browsers cannot set it.


def bearer(request: Request) -> Response | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    user = TOKENS.get(fingerprint(token))
    if scheme.lower() != "bearer" or user is None:
        challenge = {"WWW-Authenticate": "Bearer"}
        return Response(HTTPStatus.UNAUTHORIZED, challenge, "A token is needed.\n")
    request.context[User] = user
    return None


@router.websocket("/bearer", before=bearer)
async def with_token(ws: WebSocket) -> None:
    await ws.send(f"hello {ws.context[User].name}, you have a token")


# A cookie: the page logs in, and the browser sends it along with the WebSocket.


@router.post("/login", before=basic_auth(PASSWORDS, realm="example"))
def login(request: Request) -> Response:
    session = secrets.token_urlsafe()
    SESSIONS[fingerprint(session)] = User(request.context[Username])
    # Over TLS, add "; Secure".
    cookie = f"session={session}; HttpOnly; SameSite=Strict; Path=/; Max-Age=86400"
    return Response(HTTPStatus.NO_CONTENT, {"Set-Cookie": cookie})


def logged_in(request: Request) -> Response | None:
    user = SESSIONS.get(fingerprint(request.cookies.get("session", "")))
    if user is None:
        return Response(HTTPStatus.FORBIDDEN, body="Log in first.\n")
    request.context[User] = user
    return None


@router.websocket("/cookie", before=logged_in)
async def with_cookie(ws: WebSocket) -> None:
    await ws.send(f"hello {ws.context[User].name}, you are logged in")


# A token among the subprotocols: for pages that have no cookie here, being from another site.


def offered_token(request: Request) -> Response | None:
    user = TOKENS.get(fingerprint(request.subprotocol_token("bearer.") or ""))
    if user is None:
        return Response(HTTPStatus.FORBIDDEN, body="Offer a valid token.\n")
    request.context[User] = user
    return None


@router.websocket("/subprotocol", before=offered_token)
async def with_offered_token(ws: WebSocket) -> None:
    await ws.send(f"hello {ws.context[User].name}, you offered a token and {ws.subprotocol!r}")


# A token in the first message: for such pages, too.


async def introduced(ws: WebSocket, seconds: float = 5) -> User | None:
    """Who says so in the first message; whoever does not in time is told, and closed."""
    with trio.move_on_after(seconds):
        token = await ws.receive()
        user = TOKENS.get(fingerprint(str(token)))
        if user is not None:
            ws.context[User] = user
            return user
    await ws.aclose(CloseCode.POLICY_VIOLATION, "send a valid token first")
    return None


@router.websocket("/first-message")
async def first_message(ws: WebSocket) -> None:
    user = await introduced(ws)
    if user is not None:
        await ws.send(f"hello {user.name}, you have introduced yourself")


async def main(port: int) -> None:
    # Cookies come with requests of any page. By default, only pages of this server may connect.
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, router, "localhost", port, subprotocols=["greeting"])
        server: WebSocketServer = await nursery.start(serve)
        print(f"Serving on {server.urls[0]}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.port)
    except* KeyboardInterrupt:
        pass

"""Which path leads where: to WebSocket handlers, HTTP endpoints, files, other routers.

This module owns the table of routes, and is the only one that knows werkzeug, which matches and
builds paths. `conversation` reads bodies and sends responses.

werkzeug is an extra. It is imported when the first `Router` is made, so a program without routers
does not need it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast, final
from urllib.parse import urlsplit

from .._arguments import check_callable, check_is_async, check_is_function, check_takes
from .._connection.websocket import WebSocket
from .._errors import CloseCode
from .._http.headers import Headers, HeadersLike, is_token
from .._http.values import Accept, Answer, PathValues, Request, Response, both, upgrade_required
from .._json import to_json
from .._options import ProcessRequest
from .files import Folder
from .hooks import check_answer
from .live_module import LiveModule
from .site import Site, Streamed

if TYPE_CHECKING:
    from werkzeug.routing import BaseConverter, Map, Rule

#: What an HTTP endpoint may return: a `Response`; a `str`, which is sent as HTML; a `dict` or a
#: `list`, as JSON; or `None`, as 204 (No Content).
Page: TypeAlias = "Response | str | Mapping[str, object] | Sequence[object] | None"

#: Hooks that are asked before a route is served, like `process_request`: one, or several in order.
Before: TypeAlias = "ProcessRequest | Sequence[ProcessRequest]"

#: What makes JSON of a `dict` or a `list`.
Dumps: TypeAlias = "Callable[[Any], str | bytes]"

EndpointT = TypeVar("EndpointT", bound="Callable[..., Page | Awaitable[Page]]")
HandlerT = TypeVar("HandlerT", bound=Callable[..., Awaitable[object]])


@dataclass(frozen=True, eq=False)
class _Route:
    """One line of the table.

    Attributes:
        rule: the whole path, with those of the routers it is mounted under.
        methods: of HTTP; `None` for a WebSocket.
        endpoint: called with the request or the WebSocket, and with what the rule captures.
        before: the hooks to ask first, those of the outermost router before the others.
        dumps: makes JSON of what the endpoint returns.
        name: the name that `url_for` takes.
        is_folder: its rule captures the path of a file, in which two slashes are not one.
    """

    rule: str
    methods: tuple[str, ...] | None
    endpoint: Callable[..., object]
    before: tuple[ProcessRequest, ...]
    dumps: Dumps
    name: str
    is_folder: bool = False


@final
class _Match:
    """The route of a request, and what its rule captured. It is kept in the request's context."""

    def __init__(self, route: _Route, values: dict[str, object]) -> None:
        self.route = route
        self.values = values


@final
class Router(Site):
    """Maps paths to WebSocket handlers, HTTP endpoints and files. It is a handler itself::

        router = Router()

        @router.websocket("/chat/<room>")
        async def chat(ws, room): ...

        @router.get("/")
        async def index(request):
            return "<h1>Welcome</h1>"

        router.static("/static", "files")
        trio.run(serve_websocket, router, "localhost", 8765)

    It needs the extra ``trio-ws[routing]``. Rules are werkzeug's: ``<name>`` captures one part of
    the path, ``<int:name>`` a number, ``<path:name>`` all the rest. The handler gets what was
    captured as keyword arguments. Routes may be added at any time, even while it serves.

    What happens to a request: the server asks `process_request`, then the router looks the path up,
    then it asks the hooks in `before`, those of an outer router first. A path that is not in the
    table is answered with 404, a method that the path does not have with 405, and a missing slash
    at the end with 308. OPTIONS is answered with the methods that there are. All of this
    also goes for requests for a WebSocket, and happens before it is open.

    Args:
        before: hooks for every route, including those of routers mounted under this one. They are
            called like `process_request`, and may be sync or async: `None` goes on, a `Response` is
            the answer, an `Accept` chooses subprotocol and headers of a WebSocket. `basic_auth`
            makes one.
        converters: further converters for rules, by name: subclasses of ``BaseConverter`` in
            `werkzeug.routing`. If a router is mounted under another, the other one needs them.
        dumps: makes JSON, `str` or UTF-8 `bytes`, of a `dict` or `list` that an endpoint returns.
            By default it is `json.dumps`, but without NaN and infinity: these are not JSON, and an
            endpoint that returns one has failed. A mounted router keeps its own.

    Raises:
        ImportError: werkzeug is not installed.
    """

    def __init__(
        self,
        *,
        before: Before = (),
        converters: Mapping[str, type[BaseConverter]] | None = None,
        dumps: Callable[[Any], str | bytes] = to_json,
    ) -> None:
        try:
            from werkzeug.routing import Map  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise ImportError('a Router needs werkzeug: pip install "trio-ws[routing]"') from exc
        self._before = _hooks(before)
        if not callable(dumps):
            raise TypeError(f"dumps is a function that makes JSON, not {dumps!r}")
        self._dumps = dumps
        self._map: Map = Map(converters=converters)
        self._adapter = self._map.bind("host")
        self._routes: list[_Route] = []
        #: The routers that this one is mounted under. The function makes a route theirs.
        self._parents: list[tuple[Router, Callable[[_Route], _Route]]] = []

    def __repr__(self) -> str:
        return f"<Router of {len(self._routes)} routes>"

    # Saying what is served…

    def websocket(
        self, path: str, *, name: str | None = None, before: Before = ()
    ) -> Callable[[HandlerT], HandlerT]:
        """Serve WebSockets at `path` with the decorated function::

            @router.websocket("/chat/<room>")
            async def chat(ws: WebSocket, room: str) -> None: ...

        Args:
            path: a rule.
            name: for `url_for`; by default that of the function.
            before: hooks for this route alone.

        Raises:
            TypeError: the function is not async, or does not take what the rule captures.
            ValueError, LookupError: the rule is not one.
        """
        _check_path(path)

        def decorate(handler: HandlerT) -> HandlerT:
            self._add_own(path, None, handler, name, before)
            return handler

        return decorate

    def route(
        self, path: str, *, methods: Iterable[str], name: str | None = None, before: Before = ()
    ) -> Callable[[EndpointT], EndpointT]:
        """Answer HTTP at `path` with the decorated function, which may be sync or async::

            @router.route("/rooms/<room>", methods=["PUT", "DELETE"])
            def change(request: Request, room: str) -> None: ...

        A sync function blocks everything else, so it should only compute. HEAD comes with GET.
        The function returns a `Response`, a `str` for a page of HTML, a `dict` or a `list` for
        JSON, or `None` for nothing. If it raises `InvalidRequest`, the answer is the response in
        that. Any other exception is answered with 500, and logged once.
        """
        _check_path(path)
        if isinstance(methods, str):
            raise TypeError(f"methods is a list, not {methods!r}")
        names = tuple(method.upper() for method in methods)
        if not names:
            raise ValueError("a route has at least one method")
        for method in names:
            if not is_token(method):
                raise ValueError(f"{method!r} is no method of HTTP")

        def decorate(endpoint: EndpointT) -> EndpointT:
            self._add_own(path, names, endpoint, name, before)
            return endpoint

        return decorate

    def get(
        self, path: str, *, name: str | None = None, before: Before = ()
    ) -> Callable[[EndpointT], EndpointT]:
        """`route` for GET and HEAD."""
        return self.route(path, methods=["GET"], name=name, before=before)

    def post(
        self, path: str, *, name: str | None = None, before: Before = ()
    ) -> Callable[[EndpointT], EndpointT]:
        """`route` for POST. The body is in ``request.body``, or ``request.json()``."""
        return self.route(path, methods=["POST"], name=name, before=before)

    def put(
        self, path: str, *, name: str | None = None, before: Before = ()
    ) -> Callable[[EndpointT], EndpointT]:
        """`route` for PUT."""
        return self.route(path, methods=["PUT"], name=name, before=before)

    def patch(
        self, path: str, *, name: str | None = None, before: Before = ()
    ) -> Callable[[EndpointT], EndpointT]:
        """`route` for PATCH."""
        return self.route(path, methods=["PATCH"], name=name, before=before)

    def delete(
        self, path: str, *, name: str | None = None, before: Before = ()
    ) -> Callable[[EndpointT], EndpointT]:
        """`route` for DELETE."""
        return self.route(path, methods=["DELETE"], name=name, before=before)

    def static(
        self,
        path: str,
        folder: str | os.PathLike[str],
        *,
        name: str = "static",
        headers: HeadersLike = (),
        before: Before = (),
    ) -> None:
        """Serve the files in `folder` under `path`, with their types, ETags and ranges.

        A path to a subfolder gives its ``index.html``. A symbolic link that leads out of `folder`
        is answered with 404, and so are names that start with a dot, except ``.well-known``.

        Args:
            path: stands before the names of the files; ``"/"`` for nothing.
            folder: a folder that exists.
            name: for `url_for`: ``router.url_for("static", filename="app.js")``.
            headers: additional fields: ``{"Cache-Control": "max-age=3600"}``.
            before: hooks for these files alone.

        Raises:
            NotADirectoryError: there is no such folder.
        """
        _check_path(path)
        files = Folder(folder, Headers(headers))
        root = path.removesuffix("/")
        for rule in (f"{root}/<path:filename>", f"{root}/"):
            self._add_own(rule, ("GET",), files.answer, name, before, is_folder=True)

    def live_module(self, path: str, *, name: str = "live_module", before: Before = ()) -> str:
        """Serve the module for browsers at `path`, for pages of `trio_ws.live`::

            router.live_module("/live.js")

        A page imports it: ``import { connect } from "/live.js"``. Its browser then asks each time
        whether there is a newer one.

        Args:
            path: of the module.
            name: for `url_for`.
            before: hooks for it alone.

        Returns:
            The path with the version of the module. By that, a browser may keep it for a year, and
            asks for nothing until the package has another one. Where this router is mounted, the
            path of the mount belongs before it.
        """
        _check_path(path)
        module = LiveModule()
        self._add_own(path, ("GET",), module.answer, name, before)
        return f"{path}?v={module.version}"

    def mount(self, path: str, router: Router, *, before: Before = ()) -> None:
        """Serve all that `router` has, and will have, under `path`.

        If `path` is a rule, every handler below gets what it captures. The hooks in `before` come
        after those of this router and before those of the other.

        Raises:
            ValueError: it would be mounted under itself, or `path` ends with a slash.
        """
        if not isinstance(router, Router):
            raise TypeError(f"another Router is mounted, not {router!r}")
        if router is self or router in self._ancestors():
            raise ValueError("a router cannot be mounted under itself")
        _check_path(path)
        if path.endswith("/"):
            raise ValueError(f"{path!r} ends with a slash")
        hooks = (*self._before, *_hooks(before))

        def as_ours(route: _Route) -> _Route:
            return replace(route, rule=path + route.rule, before=(*hooks, *route.before))

        for route in router._routes:
            self._add(as_ours(route))
        router._parents.append((self, as_ours))

    def url_for(self, endpoint: str | Callable[..., object], **values: object) -> str:
        """The path that leads to a handler or an endpoint, quoted::

            router.url_for(chat, room="a b")  # "/chat/a%20b"

        Args:
            endpoint: the function, or its name.
            values: for the parts that the rule captures. Others become the query.

        Raises:
            LookupError: there is no such route, or a value is missing or of the wrong kind.
        """
        for route in self._routes:
            if endpoint in (route.name, route.endpoint):
                try:
                    return (
                        urlsplit(self._adapter.build(route, values))
                        ._replace(scheme="", netloc="")
                        .geturl()
                    )
                except (LookupError, ValueError):
                    continue  # the same endpoint may have another route that takes these values
        what = endpoint if isinstance(endpoint, str) else getattr(endpoint, "__name__", endpoint)
        raise LookupError(f"there is no route for {what} with the values {values!r}")

    def _ancestors(self) -> Iterable[Router]:
        for parent, _ in self._parents:
            yield parent
            yield from parent._ancestors()

    def _add_own(
        self,
        path: str,
        methods: tuple[str, ...] | None,
        endpoint: Callable[..., object],
        name: str | None,
        before: Before,
        *,
        is_folder: bool = False,
    ) -> None:
        if methods is None:
            check_is_async("the handler of a route", endpoint, "a WebSocket and what is captured")
            if isinstance(endpoint, Site):
                before = (*_hooks(before), endpoint.admit)
        else:
            check_is_function("an endpoint", endpoint, "a Request and what is captured")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a route is a str, not {name!r}")
        name = name or str(getattr(endpoint, "__name__", endpoint))
        hooks = (*self._before, *_hooks(before))
        self._add(_Route(path, methods, endpoint, hooks, self._dumps, name, is_folder))

    def _add(self, route: _Route) -> None:
        from werkzeug.routing import Rule  # noqa: PLC0415 - an extra

        rule = Rule(
            route.rule,
            endpoint=route,
            methods=route.methods,
            websocket=route.methods is None,
            merge_slashes=False if route.is_folder else None,
        )
        self._map.add(rule)
        _check_takes(rule, partly=True)  # a router above may capture what is still missing
        self._routes.append(route)
        for parent, as_theirs in self._parents:
            parent._add(as_theirs(route))

    # Looking it up…

    async def admit(self, request: Request) -> Answer:
        """Look the request up and ask the hooks. Gives what `process_request` may give.

        So a router can be the `process_request` of a stream of your own::

            async with wrap_server_stream(stream, process_request=router.admit) as ws:
                await router(ws)
        """
        match = self._look_up(request)
        if isinstance(match, Response):
            return match
        request.context[_Match] = match
        request.context[PathValues] = PathValues(match.values)
        accept: Accept | None = None
        for hook in match.route.before:
            answer = hook(request)
            if inspect.isawaitable(answer):
                answer = await answer
            check_answer(answer, request)
            if isinstance(answer, Response):
                return answer
            accept = both(accept, answer)
        return accept

    def _look_up(self, request: Request) -> _Match | Response:
        if request.target == "*":  # OPTIONS about the whole server (RFC 9110 section 9.3.7)
            return _wrong_method(request, self._methods())

        from werkzeug.exceptions import MethodNotAllowed, NotFound  # noqa: PLC0415 - an extra
        from werkzeug.routing import RequestRedirect, WebsocketMismatch  # noqa: PLC0415

        try:
            route, values = self._adapter.match(
                request.path,
                method=request.method,
                query_args=request.query,
                websocket=request.is_upgrade,
            )
        except RequestRedirect as redirect:
            location = urlsplit(redirect.new_url)._replace(scheme="", netloc="").geturl()
            return Response(308, {"Location": location})
        except MethodNotAllowed as exc:
            return _wrong_method(request, exc.valid_methods or ())
        except WebsocketMismatch:
            return _wrong_protocol(request)
        except (NotFound, ValueError):  # a number too long for an int is a ValueError
            return Response(404, body="There is nothing at this path.\n")
        return _Match(cast("_Route", route), dict(values))

    def _methods(self) -> Iterable[str]:
        for route in self._routes:
            yield from route.methods or ["GET"]
            if route.methods and "GET" in route.methods:
                yield "HEAD"

    # Serving…

    def check(self) -> None:
        """Check that every handler and endpoint takes what its rule captures.

        The server calls this at the start.

        Raises:
            TypeError: one takes more.
        """
        for rule in self._map.iter_rules():
            _check_takes(rule)

    async def __call__(self, websocket: WebSocket) -> None:
        """Serve a WebSocket. The server calls this.

        A WebSocket that `admit` was not asked about is looked up by its path, without hooks. It is
        closed with 1008 if the path leads nowhere.
        """
        match: _Match | Response | None = websocket.context.get(_Match)
        if match is None:
            match = self._look_up(websocket.request)
        if isinstance(match, Response):
            await websocket.aclose(CloseCode.POLICY_VIOLATION, "there is nothing at this path")
            return
        handler = cast("Callable[..., Awaitable[object]]", match.route.endpoint)
        await handler(websocket, **match.values)

    async def respond(self, request: Request) -> Response | Streamed:
        """Answer a request that `admit` has let through. The server calls this."""
        match = request.context[_Match]
        page = match.route.endpoint(request, **match.values)
        if inspect.isawaitable(page):
            page = await page
        return _as_response(page, match.route.dumps)


def _as_response(page: Any, dumps: Dumps) -> Response | Streamed:
    if isinstance(page, (Response, Streamed)):
        return page
    if isinstance(page, str):
        return Response.html(page)
    if isinstance(page, (dict, list)):
        return Response.json(cast("object", page), dumps=dumps)
    if page is None:
        return Response(204)
    raise TypeError(
        f"an endpoint returns a Response, a str of HTML, a dict or list for JSON, or None: "
        f"not {page!r}"
    )


def _wrong_method(request: Request, methods: Iterable[str]) -> Response:
    allow = {"Allow": ", ".join(sorted({*methods, "OPTIONS"}))}
    if request.method == "OPTIONS":
        return Response(204, allow)
    return Response(405, allow, "This method is not allowed here.\n")


def _wrong_protocol(request: Request) -> Response:
    """Answer a request for a WebSocket at the path of a page, or the other way round."""
    if request.is_upgrade:
        return Response(404, body="There is no WebSocket at this path.\n")
    if request.method not in ("GET", "HEAD"):
        return _wrong_method(request, ["GET"])
    return upgrade_required("This path is for WebSockets.").response


def _check_takes(rule: Rule, *, partly: bool = False) -> None:
    route = cast("_Route", rule.endpoint)
    first = "the WebSocket" if route.methods is None else "the Request"
    captured: list[str] = sorted(cast("Any", rule).arguments)
    how = f"what serves {route.rule!r} is called with {' and '.join([first, *captured])}"
    check_takes(how, route.endpoint, [first], captured, partly=partly)


def _check_path(path: object) -> None:
    if not isinstance(path, str):
        hint = ": write @router.get('/') and the like" if callable(path) else ""
        raise TypeError(f"a path is a str, not {path!r}{hint}")
    if not path.startswith("/"):
        raise ValueError(f"a path starts with a slash, unlike {path!r}")


def _hooks(before: Before) -> tuple[ProcessRequest, ...]:
    given: object = before
    if not callable(given) and not hasattr(given, "__iter__"):
        raise TypeError(f"before is a hook, or a list of them, not {given!r}")
    hooks = (before,) if callable(before) else tuple(before)
    for hook in hooks:
        check_callable("a hook", hook, "a Request")
    return hooks

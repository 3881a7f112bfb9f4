"""``module:attribute``: how ``trio-ws serve`` finds the application that it runs, and checks it.

This module knows how an application is named and what one looks like. It knows no servers.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, cast

from .._arguments import check_async
from .._server.handlers import Handler
from .._threads import IMPORTING
from .exits import USAGE, CommandFailed

#: A function that gives an async context manager, which yields the handler. An application with
#: set-up to do does it before that, and cleans up when the server has ended.
Application: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]


def load_application(name: str) -> Application:
    """Import the application called `name`, with the current directory on the path.

    Raises:
        CommandFailed: there is no such application, it is not one, or importing its module failed.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise CommandFailed(
            f"{name!r} does not name an application: write module:attribute, as in chat:handler",
            USAGE,
        )
    found: object = _import(module_name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise CommandFailed(f"{module_name!r} has no {attribute!r}", USAGE) from None
    return _checked(name, found)


def _import(name: str) -> ModuleType:
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    token = IMPORTING.set(name)
    try:
        return importlib.import_module(name)
    except Exception as exc:
        if isinstance(exc, ModuleNotFoundError) and f"{name}.".startswith(f"{exc.name}."):
            raise CommandFailed(
                f"there is no module {exc.name!r}, neither here nor installed", USAGE
            ) from None
        raise CommandFailed(f"{name!r} cannot be imported") from exc
    finally:
        IMPORTING.reset(token)


def _checked(name: str, found: object) -> Application:
    if inspect.isasyncgenfunction(found):
        raise CommandFailed(
            f"{name} has a yield in it: a function that does set-up and yields the handler needs "
            "the decorator contextlib.asynccontextmanager; a handler does not yield",
            USAGE,
        )
    if not callable(found):
        raise CommandFailed(
            f"{name} is {found!r}, and not a handler, which is an async function of one WebSocket",
            USAGE,
        )
    if _can_be_called(found, "a WebSocket") and not inspect.isclass(found):
        _check_async(name, found)
        return lambda: nullcontext(found)
    if _can_be_called(found) and not inspect.iscoroutinefunction(found):
        return lambda: _opened(name, found())
    raise CommandFailed(
        f"{name} takes neither one argument, as a handler does, nor none, as a function does that "
        "gives an async context manager for the handler",
        USAGE,
    )


def _can_be_called(function: Callable[..., object], *arguments: object) -> bool:
    try:
        # This looks through decorators to the function itself: contextlib's wrapper takes anything.
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have no signature
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _opened(name: str, context: object) -> AbstractAsyncContextManager[object]:
    if not isinstance(context, AbstractAsyncContextManager):
        raise CommandFailed(
            f"{name} takes no argument, so it should give an async context manager that yields the "
            f"handler (see contextlib.asynccontextmanager), and not {context!r}",
            USAGE,
        )
    return cast("AbstractAsyncContextManager[object]", context)


def check_handler(name: str, handler: object) -> Handler:
    """Check what the context manager yielded, and return it as a handler.

    Raises:
        CommandFailed: it is not a handler.
    """
    if not callable(handler) or not _can_be_called(handler, "a WebSocket"):
        raise CommandFailed(
            f"{name} should yield the handler, an async function of one WebSocket, and not "
            f"{handler!r}",
            USAGE,
        )
    _check_async(name, handler)
    return cast("Handler", handler)


def _check_async(name: str, handler: object) -> None:
    try:
        check_async("a handler", handler, "one WebSocket")
    except TypeError as exc:
        raise CommandFailed(f"{name}: {exc}", USAGE) from None

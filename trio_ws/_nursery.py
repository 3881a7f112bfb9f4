"""A nursery from which one exception comes out as it went in.

trio's own nurseries wrap every exception in an ExceptionGroup, even a single exception of their
body. That is right if the caller started the tasks, and wrong if a library hides them: the caller's
``except`` clause need not know whether a library uses tasks.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from math import inf
from types import TracebackType
from typing import Final, Generic, NoReturn, ParamSpec, TypeVar, cast, final

import trio

from ._errors import HandshakeError
from ._threads import check_in_trio

#: What a function that is decorated with `protected_context` returns.
_GIVEN: Final = r"AbstractAsyncContextManager[\1]"

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


def protected_context(
    function: Callable[P, AsyncGenerator[T_co, None]],
) -> Callable[P, AbstractAsyncContextManager[T_co, bool | None]]:
    """`contextlib.asynccontextmanager` that Ctrl-C does not interrupt on the way in and out.

    Protecting the generator alone is not enough. Ctrl-C could interrupt the code in contextlib that
    resumes it, and then nobody would close the nursery in it. The block itself is not protected.
    """
    make = asynccontextmanager(function)

    @wraps(function)
    def helper(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T_co, bool | None]:
        return AsyncBlock(make(*args, **kwargs), function.__name__)

    # What help() and the documentation say of the function: it gives a context manager.
    signature = inspect.signature(function)
    given = re.sub(r"^AsyncGenerator\[(.*), None\]$", _GIVEN, str(signature.return_annotation))
    vars(helper)["__signature__"] = signature.replace(return_annotation=given)
    return helper


@final
class AsyncBlock(AbstractAsyncContextManager[T_co, "bool | None"], Generic[T_co]):
    """What a function that is decorated with `protected_context` returns.

    Its name stands in errors of Python's, where it is used in another way than ``async with``.
    """

    __slots__ = ("_context", "_entered", "_name")

    def __init__(self, context: AbstractAsyncContextManager[T_co, bool | None], name: str) -> None:
        self._context = context
        self._name = name
        self._entered = False

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> T_co:
        check_in_trio(self._name)
        if self._entered:
            raise RuntimeError(f"{self._name}() is entered once: call it again for another block")
        self._entered = True
        try:
            return await self._context.__aenter__()
        except HandshakeError as exc:
            # Its text says what happened. Our frames would only bury the caller's line.
            exc.__traceback__ = None
            raise

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._context.__aexit__(kind, exc, traceback)

    def __repr__(self) -> str:
        return f"<{self._name}(…), for 'async with'>"

    # Two mistakes that Python's own words do not explain.

    def __enter__(self) -> NoReturn:
        raise TypeError(f"write 'async with {self._name}(…)', not 'with'")

    __exit__ = __enter__

    def __await__(self) -> NoReturn:
        raise TypeError(f"write 'async with {self._name}(…)', not 'await'")


@protected_context
async def open_bare_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """Like `trio.open_nursery`, for bodies whose own exception should come out bare.

    Ctrl-C does not interrupt it: between two of its lines there may be tasks that nobody has told
    to end.

    What the body raises, `KeyboardInterrupt` included, waits until all tasks have ended and is then
    raised unchanged. It does not cancel the tasks: the body's ``finally`` tells them to end. An
    exception of a task cancels everything, and also comes out bare if it is the only one. If the
    body and a task failed, both exceptions come out in a group.
    """
    failures: list[BaseException] = []
    cancellations: list[BaseException] = []
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:  # put back as soon as the nursery is closed
                (cancellations if is_cancellation(exc) else failures).append(exc)
    except BaseExceptionGroup as group:
        error = only_exception(group)
        only_cancelled = is_cancellation(error) and not failures
        (cancellations if only_cancelled else failures).append(error)
        del error
    try:
        if len(failures) > 1:
            failures = [BaseExceptionGroup("the body and a task failed", failures)]
        if failures:
            raise_as_is(failures.pop())
        # A cancellation from outside this nursery goes on. The body's exception is raised rather
        # than a new one, so that a timeout shows the line that waited.
        if cancellations and trio.current_effective_deadline() == -inf:
            raise_as_is(cancellations.pop(0))
    finally:
        cancellations.clear()  # their tracebacks hold this frame, which would hold them
    await trio.lowlevel.checkpoint_if_cancelled()


def raise_as_is(exc: BaseException) -> NoReturn:
    """Raise `exc` with the cause and the context that it has, and without making a cycle.

    So it is freed when nobody needs it any more, with all that its traceback leads to. A frame that
    raises what one of its variables refers to makes a cycle, so the caller must not keep `exc`
    either. A group that is being handled must not become the context of an exception inside it.
    """
    context = exc.__context__
    try:
        raise exc
    finally:
        exc.__context__ = context
        del exc, context


def forget_tracebacks(exc: BaseException) -> None:
    """Make `exc` safe to keep, with its causes: a traceback holds all that its frames refer to.

    A frame also holds the frames that called it. So an exception that a connection keeps would keep
    the connection.
    """
    chain: list[BaseException | None] = [exc]
    for one in chain:
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            chain += one.__cause__, one.__context__


def is_cancellation(exc: BaseException) -> bool:
    """Whether `exc` is `trio.Cancelled` or a group of nothing else."""
    return not errors_in(exc)


def errors_in(exc: BaseException) -> list[BaseException]:
    """The exceptions in `exc` that are not cancellations."""
    return [leaf for leaf in leaf_exceptions(exc) if not isinstance(leaf, trio.Cancelled)]


def only_exception(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception inside `group`, however deep, or `group` where there are several."""
    leaves = leaf_exceptions(group)
    return leaves[0] if len(leaves) == 1 else group


def leaf_exceptions(exc: BaseException) -> list[BaseException]:
    """The exceptions in a group and in the groups inside it; just `exc` if it is no group."""
    if not isinstance(exc, BaseExceptionGroup):
        return [exc]
    group = cast("BaseExceptionGroup[BaseException]", exc)
    return [leaf for inner in group.exceptions for leaf in leaf_exceptions(inner)]

"""A nursery from which one exception comes out as it went in."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws._nursery import leaf_exceptions, only_exception, open_bare_nursery


async def fail(exc: Exception) -> None:
    raise exc


@pytest.mark.parametrize(
    "exc", [ValueError("x"), KeyboardInterrupt(), ExceptionGroup("x", [ValueError("y")])], ids=repr
)
async def test_an_error_of_the_body_comes_out_as_it_is(exc: BaseException) -> None:
    with pytest.raises(type(exc)) as caught:
        async with open_bare_nursery():
            raise exc
    assert caught.value is exc


async def test_an_error_of_the_body_waits_for_the_tasks(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(ValueError, match="x"):
        async with open_bare_nursery() as nursery:
            nursery.start_soon(trio.sleep, 3)
            raise ValueError("x")
    assert trio.current_time() == 3


async def test_an_error_of_one_task_comes_out_bare() -> None:
    error = ValueError("x")
    with pytest.raises(ValueError, match="x") as caught:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(fail, error)
            await trio.sleep_forever()
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None  # the group, of which it was a part, least of all


async def test_what_a_task_raises_while_it_handles_something_else_still_says_so() -> None:
    async def fail_in_turn() -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("then")  # noqa: B904 - what is tested

    with pytest.raises(ValueError, match="then") as caught:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(fail_in_turn)
    assert isinstance(caught.value.__context__, KeyError)
    assert not caught.value.__suppress_context__


async def test_errors_of_two_tasks_come_out_in_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(fail, ValueError("x"))
            nursery.start_soon(fail, KeyError("y"))
    assert {type(exc) for exc in leaf_exceptions(caught.value)} == {ValueError, KeyError}


async def test_neither_of_two_failures_is_lost() -> None:
    body, task = ValueError("body"), KeyError("task")
    with pytest.raises(ExceptionGroup, match="the body and a task failed") as caught:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(fail, task)
            raise body
    assert caught.value.exceptions == (body, task)


@pytest.mark.parametrize("tasks", [0, 1, 2])
async def test_a_cancellation_from_outside_goes_on_its_way(tasks: int) -> None:
    with trio.CancelScope() as scope:
        async with open_bare_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.Event().wait()
        pytest.fail("it went on")
    assert scope.cancelled_caught


async def test_a_cancellation_of_the_nursery_ends_there() -> None:
    async with open_bare_nursery() as nursery:
        nursery.cancel_scope.cancel()
        await trio.Event().wait()
    await trio.lowlevel.checkpoint()  # nothing of it is left


def test_a_group_of_one_is_that_one_however_deep() -> None:
    error = ValueError("x")
    assert only_exception(ExceptionGroup("a", [ExceptionGroup("b", [error])])) is error


def test_a_group_of_several_stays_a_group() -> None:
    group = ExceptionGroup("a", [ValueError("x"), ExceptionGroup("b", [KeyError("y")])])
    assert only_exception(group) is group
    assert list(map(type, leaf_exceptions(group))) == [ValueError, KeyError]


async def test_a_cancellation_from_outside_comes_out_as_it_struck_the_body() -> None:
    async def wait(event: trio.Event) -> None:
        await event.wait()

    raised: list[BaseException] = []
    with trio.move_on_after(0) as scope:
        try:
            async with open_bare_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await wait(trio.Event())
                except trio.Cancelled as exc:
                    raised.append(exc)
                    raise
        except trio.Cancelled as exc:
            raised.append(exc)
            raise
    assert scope.cancelled_caught
    assert raised[0] is raised[1]


async def test_a_cancellation_of_the_nursery_s_own_ends_there() -> None:
    async with open_bare_nursery() as nursery:
        nursery.cancel_scope.cancel()
        await trio.sleep_forever()

"""The Redis backplane when Redis refuses: passwords, permissions, messages, strangers."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.backplane.backplane_helpers import run
from tests.backplane.redis_helpers import (
    Mode,
    both_modes,
    messages,
    run_two,
    start_in_vain,
    wait_until,
)
from tests.backplane.redis_server import HOST, RedisServer, run_redis
from trio_ws.backplane import BackplaneError, RedisBackplane


@pytest.mark.parametrize("url", ["redis://{}:{}", "redis://:wrong@{}:{}"])
async def test_a_missing_or_wrong_password_ends_a_backplane_at_the_start(
    tmp_path: Path, url: str
) -> None:
    async with run_redis(tmp_path, "--requirepass", "right") as server:
        with pytest.raises(BackplaneError, match="refuses") as caught:
            await start_in_vain(RedisBackplane(url.format(HOST, server.port)))
        assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("password", ["xyzzy", "xy%22zzy", "with%20args%20xyzzy"])
async def test_a_server_that_repeats_the_log_in_does_not_give_away_the_password(
    tmp_path: Path, password: str
) -> None:
    async with run_redis(tmp_path, *("--rename-command", "HELLO", "")) as server:
        with pytest.raises(BackplaneError, match="refuses: unknown command 'HELLO'") as caught:
            await start_in_vain(RedisBackplane(f"redis://me:{password}@{HOST}:{server.port}"))
    assert "zzy" not in "".join(traceback.format_exception(caught.value)).replace(password, "")


@both_modes
async def test_a_missing_permission_ends_a_backplane_at_the_start(
    redis: RedisServer, mode: Mode
) -> None:
    await redis.command("ACL", "SETUSER", "guest", "on", ">pw", "+@all", "~mine:*", "&mine:*")
    guest: dict[str, Any] = {"url": f"redis://guest:pw@{HOST}:{redis.port}", "mode": mode}
    with pytest.raises(BackplaneError, match="permission"):
        await start_in_vain(RedisBackplane(**guest), "news")
    async with run(RedisBackplane(**guest, prefix="mine:"), "news"):
        pass


@both_modes
async def test_the_permissions_that_the_documentation_names_are_enough(
    redis: RedisServer, mode: Mode
) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/backplane.md").read_text("utf-8")
    ((pubsub, channels), (streams, names)) = re.findall(r"`(\+@[^`]*)`\s+and\s+`([&~][^`]*)`", page)
    words = f"{pubsub} {channels}" if mode == "pubsub" else f"{streams} {names}"
    await redis.command("ACL", "SETUSER", "guest", "on", ">pw", *words.split())
    url = f"redis://guest:pw@{HOST}:{redis.port}"
    async with run(RedisBackplane(url, mode=mode)) as one:
        async with run(RedisBackplane(url, mode=mode), "news") as other:
            await other.backplane.wait_subscribed()
            other.backplane.subscribe("weather")
            await other.backplane.wait_subscribed()
            one.backplane.publish("weather", "1")
            await wait_until(lambda: other.received)
            other.backplane.unsubscribe("weather")
            other.backplane.subscribe("one more")
            await other.backplane.wait_subscribed()
            assert one.statistics.refused == 0


async def test_a_database_that_is_not_there_ends_a_backplane_at_the_start(
    redis: RedisServer,
) -> None:
    with pytest.raises(BackplaneError, match="DB index is out of range"):
        await start_in_vain(RedisBackplane(f"{redis.url}/99"))


async def test_a_password_that_is_changed_later_is_waited_for(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.command("ACL", "SETUSER", "guest", "on", ">pw", "+@all", "~*", "&*")
    backplane = RedisBackplane(f"redis://guest:pw@{HOST}:{redis.port}")
    async with run(backplane, "news"):
        await redis.command("ACL", "SETUSER", "guest", "resetpass", ">other")
        await redis.command("CLIENT", "KILL", "USER", "guest")
        await wait_until(lambda: "refuses: " in caplog.text)
        await redis.command("ACL", "SETUSER", "guest", "resetpass", ">pw")
        await backplane.wait_subscribed()
        await wait_until(lambda: backplane.statistics().connected)


@both_modes
async def test_a_refused_message_is_counted_and_told(
    redis: RedisServer, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.command("ACL", "SETUSER", "guest", "on", ">pw", "+@all", "~*", "&*")
    guest = RedisBackplane(f"redis://guest:pw@{HOST}:{redis.port}", mode=mode)
    async with run(RedisBackplane(redis.url, mode=mode), "news") as other, run(guest) as node:
        lost = node.lost
        await other.backplane.wait_subscribed()
        for number in range(5):
            if number == 1:
                await redis.command("ACL", "SETUSER", "guest", "-publish", "-xadd")
            if number == 4:
                await redis.command("ACL", "SETUSER", "guest", "+publish", "+xadd")
            guest.publish("news", str(number))
            await guest.flush()
        await wait_until(lambda: len(other.received) == 2)
        assert messages(other) == ["0", "4"]
        assert other.gaps == ([] if mode == "streams" else ["news"])
        assert other.statistics.gaps == len(other.gaps)
        assert lost == [2, 3, 4]
        assert (guest.statistics().refused, guest.statistics().sent) == (3, 2)
        assert guest.statistics().connections == 1
        refusals = [record for record in caplog.records if "refuses a message" in record.message]
        assert len(refusals) == 2  # the first and the second, and not each


async def test_messages_that_strangers_publish_under_our_names_are_ignored(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_two(redis, "news") as (one, other):
        await redis.command("PUBLISH", "trio_ws:news", "hello")
        one.backplane.publish("news", "1")
        await wait_until(lambda: other.received)
        assert other.received == [("news", "1")]
        assert other.statistics.malformed == 1
        assert "ignored data that is not a message, on topic 'news'" in caplog.text

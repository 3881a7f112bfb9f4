"""What Redis itself runs in the mode ``"streams"``: two scripts in Lua, and their answers.

This module owns the form of what is kept in Redis. It does no I/O and knows no client library.

Redis runs a script without interruption. So the order in which messages get their positions is that
in which they are sent on, and a message is kept if and only if it was sent on.

Each topic has two keys and a channel. Their names have the topic in braces, so that on a cluster
they are on the same node:

- ``…{topic}:meta`` is a hash. ``epoch`` and ``offset`` are the position of the newest message.
  ``failovers`` counts the failovers that Sentinel made before the epoch began. Each further field
  is the identity of a publisher, 8 bytes, and has the number of its last message on this topic.
- ``…{topic}:log`` is a stream. The entry of the message at offset 42 has the id ``42-`` and then
  Redis's time in milliseconds, and one field, ``m``, with the envelope.
- The channel ``…{topic}`` brings ``@epoch-offset``, a line feed, and the envelope. A message that
  is not kept comes as its envelope alone.

A new epoch begins when the hash is not there, for whatever reason: the topic is new, or unused for
long, or Redis has evicted it or lost its data. It also begins where Redis has lost the end of what
it had: a publisher or a reader knows better, or there was a failover. Then the older messages are
still good, and stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from math import inf
from typing import Any, Final, NamedTuple, TypeGuard

from .._envelope import ORIGIN_SIZE
from .._position import Position
from .address import BrokerRefused

#: For how many publishers of one topic the number of their last message is kept. One more, and all
#: are forgotten: processes that come and go must not add up. While one is forgotten, a message that
#: it repeats would be kept twice; it repeats one only if it was cut off before the answer.
MAX_PUBLISHERS = 256

_AGE = """
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number)
    return string.format('%.0f', number)
end

-- The offset of an entry, and when it was added.
local function parts(entry)
    local offset, added = string.match(entry[1], '^(%d+)-(%d+)$')
    return tonumber(offset), tonumber(added)
end

-- The first offset that was added at `since` or later. The times in between may be out of order,
-- if the clock was set; then it is one of those that fit.
local function first_since(stream, top, since)
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if not first then
        return top + 1
    end
    local low, added = parts(first)
    if added >= since then
        return low
    end
    local high = top + 1
    while high - low > 1 do
        local middle = math.floor((low + high) / 2)
        local entry = redis.call('XRANGE', stream, text(middle), '+', 'COUNT', 1)[1]
        if not entry or select(2, parts(entry)) >= since then
            high = middle
        else
            low = middle
        end
    end
    return high
end
"""

PUBLISH: Final = (
    _AGE
    + """
local meta, stream = KEYS[1], KEYS[2]
local channel, origin, envelope = ARGV[1], ARGV[2], ARGV[4]
local number, acknowledged = tonumber(ARGV[3]), tonumber(ARGV[5])
local failovers, length, age, ttl = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])

local known = redis.call('HMGET', meta, 'epoch', 'offset', 'failovers', origin)
local epoch, offset, last = known[1], tonumber(known[2]) or 0, tonumber(known[4])
if epoch and last and number <= last then
    return 0
end

local fresh = string.sub(redis.sha1hex(origin .. ARGV[3]), 1, 12)
local begins = false
if not epoch or failovers > tonumber(known[3]) or (last and last < acknowledged) then
    epoch, begins = fresh, true
end

-- First of all, because this is what Redis refuses when it is full. Nothing is half done then.
local added = now()
local function add()
    local id = text(offset + 1) .. '-' .. text(added)
    if length == '' then
        return redis.pcall('XADD', stream, id, 'm', envelope)
    end
    return redis.pcall('XADD', stream, 'MAXLEN', '~', length, id, 'm', envelope)
end
local result = add()
if result.err and string.find(result.err, 'equal or smaller', 1, true) then
    -- Of an epoch of which the hash is gone, or written by somebody else.
    redis.call('UNLINK', stream)
    epoch, offset, begins = fresh, 0, true
    result = add()
end
if result.err then
    return result
end

offset = offset + 1
local renewed = begins
if begins then
    redis.call('HSET', meta, 'epoch', epoch, 'failovers', failovers)
elseif not last and redis.call('HLEN', meta) >= 3 + """
    + str(MAX_PUBLISHERS)
    + """ then
    redis.call('DEL', meta)
    redis.call('HSET', meta, 'epoch', epoch, 'failovers', known[3])
    renewed = true
end
redis.call('HSET', meta, 'offset', text(offset), origin, ARGV[3])
if age > 0 then
    local first = first_since(stream, offset, added - age)
    redis.call('XTRIM', stream, 'MINID', text(first))
end
if ttl ~= 0 and (renewed or ttl > 0) then
    redis.call('EXPIRE', meta, math.abs(ttl))
    redis.call('EXPIRE', stream, math.abs(ttl))
end
redis.call('PUBLISH', channel, '@' .. epoch .. '-' .. text(offset) .. '\\n' .. envelope)
return 1
"""
)

READ: Final = (
    _AGE
    + """
local meta, stream = KEYS[1], KEYS[2]
local epoch, offset, mark = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local failovers, fresh = tonumber(ARGV[4]), ARGV[5]
local count, size = tonumber(ARGV[6]), tonumber(ARGV[7])
local age, ttl = tonumber(ARGV[8]), math.abs(tonumber(ARGV[9]))

local known = redis.call('HMGET', meta, 'epoch', 'offset', 'failovers')
local current, top = known[1], tonumber(known[2]) or 0

-- Whether a reader of ours has got what is not here. What a client says is no proof of that.
local function diverged()
    if mark == '' or current ~= epoch then
        return false
    end
    local entry = redis.call('XRANGE', stream, text(offset), text(offset), 'COUNT', 1)[1]
    return offset > top
        or (entry and mark ~= '?' and string.sub(entry[2][2], 3, 18) ~= mark)
end

if not current or failovers > tonumber(known[3]) or diverged() then
    local result = redis.pcall(
        'HSET', meta, 'epoch', fresh, 'offset', text(top), 'failovers', failovers
    )
    if type(result) == 'table' then
        -- When Redis is full, the epoch begins with the first message that it takes.
        if not string.find(result.err, 'OOM', 1, true) then
            return result
        end
    elseif ttl ~= 0 then
        redis.call('EXPIRE', meta, ttl)
    end
    current = fresh
end

local from = math.max(0, top - count)
if current == epoch then
    -- A reader of ours gets all that it has missed, however much it is.
    from = math.max(mark == '' and from or 0, math.min(offset, top))
end
if age > 0 then
    from = math.max(from, first_since(stream, top, now() - age) - 1)
end
local found, taken, enough = {current, text(top)}, 0, false
while from < top and not enough do
    local entries = redis.call('XRANGE', stream, text(from + 1), text(top), 'COUNT', 16)
    enough = #entries == 0
    for _, entry in ipairs(entries) do
        from = parts(entry)
        taken = taken + #entry[2][2]
        table.insert(found, text(from))
        table.insert(found, entry[2][1] == 'm' and entry[2][2] or '')
        if taken >= size then
            enough = true
            break
        end
    end
end
return found
"""
)


def sha_of(script: str) -> str:
    """The name under which Redis knows a script."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What is kept of a topic.

    Attributes:
        length: how many messages, about; `math.inf` for any number.
        max_age: for how many seconds; `math.inf` for any time.
        time_to_live: for how many seconds after the last one all of it is kept; `math.inf` for any
            time.
    """

    length: float = inf
    max_age: float = inf
    time_to_live: float = inf

    @property
    def length_word(self) -> str:
        return "" if self.length == inf else str(int(self.length))

    @property
    def age_word(self) -> int:
        """In milliseconds; 0 for any."""
        return 0 if self.max_age == inf else max(1, round(1000 * self.max_age))

    def time_to_live_word(self, *, due: bool) -> int:
        """In seconds; 0 for any time; below 0 if it is to be set only where an epoch begins."""
        if self.time_to_live == inf:
            return 0
        seconds = max(1, round(self.time_to_live))
        return seconds if due else -seconds


class Portion(NamedTuple):
    """The answer to `READ`.

    Attributes:
        position: of the newest message.
        entries: offsets and envelopes, the oldest first. An entry that somebody else has written
            has an empty envelope.
    """

    position: Position
    entries: list[tuple[int, bytes]]


def portion_in(answer: Any) -> Portion:
    """The answer to `READ`, taken apart.

    Raises:
        BrokerRefused: this is not such an answer.
    """
    words = answer if _is_list(answer) else []
    if len(words) < 2 or len(words) % 2 or not all(isinstance(word, bytes) for word in words):
        raise BrokerRefused(f"it answered {answer!r:.100} instead of messages")
    try:
        position = Position(words[0].decode(), int(words[1]))
        offsets = [int(word) for word in words[2::2]]
    except ValueError:
        raise BrokerRefused(f"it answered {answer!r:.100} instead of messages") from None
    return Portion(position, list(zip(offsets, words[3::2], strict=True)))


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


class Push(NamedTuple):
    """What came over the channel of a topic; the position is `None` if it is not kept."""

    position: Position | None
    data: bytes


def push_in(data: bytes) -> Push:
    """The message in what came over a channel.

    Raises:
        ValueError: it is not from `PUBLISH`.
    """
    if not data.startswith(b"@"):
        return Push(None, data)
    head, found, envelope = data.partition(b"\n")
    position = Position.parse(head[1:].decode("ascii"))
    if not found or position is None:
        raise ValueError("its position is malformed")
    return Push(position, envelope)


def mark_in(data: bytes) -> bytes:
    """What tells a message from all others: its publisher and its number."""
    return data[2 : 2 + ORIGIN_SIZE + 8]

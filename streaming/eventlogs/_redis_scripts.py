"""What runs inside the Redis server: one Lua script for each change that must happen whole.

A script runs alone, so it can look and then write. It tells the time by the
server's clock only. It answers ``false`` (here ``None``) for a stream that is not
there, a number or a table otherwise.

Keys, all below ``sluice:`` so that an ACL can name them::

    store              hash: id, schema
    {<stream>}:meta    hash: state gen seq worker cancel created ended key request owner bell token
    {<stream>}:log     stream: one entry for each batch, its id the seq of the last event
    {<stream>}:readers hash: worker -> until, in ms of the server's clock
    key:<key>          "<stream> <fingerprint>", what makes a create idempotent
    worker:<worker>    hash: until (ms), boot, namespace, pid, started
    owners             set of workers with running streams
    running:<worker>   set of its running streams
    theirs:<owner>     set of an owner's running streams, and maybe of some that were lost
    usage:<day>:<owner>    hash: "<column> <model>" -> sum
    usage-owners:<day>     set of owners
    usage-kinds:<day>      hash: "<column> <kind of owner>" -> sum
    cancels:<worker>   set of those that somebody asked to cancel
    ended, erased      sorted sets of streams by when that happened
    bell:<log>         stream: rung to interrupt a worker's blocking read

Source: https://redis.io/docs/latest/develop/interact/programmability/eval-intro/ and, for
explicit ids and exclusive ranges, https://redis.io/docs/latest/commands/xadd/ and …/xrange/.
"""

import hashlib
from typing import NamedTuple

Argument = str | bytes | int | float
Command = tuple[Argument, ...]

SCHEMA_VERSION = "1"
SAFETY_SECONDS = 30 * 86_400
"""No key lives longer than this unless it is used, even when nobody expires it."""
USAGE_SECONDS = 400 * 86_400
KEY_SECONDS = 86_400
"""How long a key makes creating a stream idempotent, at most."""

# What scripts share. Each brings only what it uses: to define a function takes time in every call.
_CALL = "local call = redis.call\n"
_SAFETY = f"local SAFETY_MS, KEY_MS = {SAFETY_SECONDS * 1000}, {KEY_SECONDS * 1000}\n"
_META = "local function meta_of(id) return 'sluice:{' .. id .. '}:meta' end\n"
_SECONDS = """
local function seconds()
  local time = call('TIME')
  return time[1] .. '.' .. string.format('%06d', time[2])
end
"""
_MILLISECONDS = """
local function milliseconds()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""
_LEASE = f"""{_MILLISECONDS}
-- worker, 'none' | 'over' | 'held', boot, namespace, pid, started
local function lease_of(worker)
  local row = call('HMGET', 'sluice:worker:' .. worker, 'until', 'boot', 'namespace', 'pid', 'started')
  if not row[1] then return {{worker, 'none'}} end
  local lease = tonumber(row[1]) > milliseconds() and 'held' or 'over'
  return {{worker, lease, row[2], row[3], row[4], row[5]}}
end
"""
_RING = """
local function ring(bell, id)
  call('XADD', 'sluice:bell:' .. bell, 'MAXLEN', '~', 10000, '*', 'stream', id)
  call('PEXPIRE', 'sluice:bell:' .. bell, 86400000)
end
"""
_FORGET = f"""{_META}{_SECONDS}
local function forget(id)
  local key = call('HGET', meta_of(id), 'key')
  if key and key ~= '' then
    local owner = call('GET', 'sluice:key:' .. key)
    if owner and string.sub(owner, 1, #id + 1) == id .. ' ' then call('DEL', 'sluice:key:' .. key) end
  end
  call('UNLINK', meta_of(id), 'sluice:{{' .. id .. '}}:log', 'sluice:{{' .. id .. '}}:readers')
  call('ZREM', 'sluice:ended', id)
  call('ZADD', 'sluice:erased', seconds(), id)
end
"""


_ACCOUNT = f"""
local function account(owner, day, model)
  local theirs, all = 'sluice:usage:' .. day .. ':' .. owner, 'sluice:usage-kinds:' .. day
  local kind = string.match(owner, '^[^_]*')
  for at = 11, #ARGV, 2 do
    call('HINCRBY', theirs, ARGV[at] .. ' ' .. model, ARGV[at + 1])
    call('HINCRBY', all, ARGV[at] .. ' ' .. kind, ARGV[at + 1])
  end
  call('SADD', 'sluice:usage-owners:' .. day, owner)
  for _, key in ipairs({{theirs, all, 'sluice:usage-owners:' .. day}}) do
    call('PEXPIRE', key, {USAGE_SECONDS * 1000})
  end
end
"""


class Script(NamedTuple):
    source: str
    sha: str

    def command(self, keys: tuple[str, ...], *arguments: Argument) -> Command:
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


ALL: list[Script] = []
"""To be loaded into the server."""


def _script(body: str, *shared: str) -> Script:
    ALL.append(named(_CALL + "".join(shared) + body))
    return ALL[-1]


def named(source: str) -> Script:
    """Return the script with the name that the server has for it."""
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def meta_key(stream_id: str) -> str:
    return f"sluice:{{{stream_id}}}:meta"


def log_key(stream_id: str) -> str:
    return f"sluice:{{{stream_id}}}:log"


def readers_key(stream_id: str) -> str:
    return f"sluice:{{{stream_id}}}:readers"


def bell_key(bell: str) -> str:
    return f"sluice:bell:{bell}"


# Name the store, unless it has a name. Returns its id and schema.
OPEN = _script("""
local new_id, new_schema = unpack(ARGV)
if call('HSETNX', 'sluice:store', 'id', new_id) == 1 then
  call('HSET', 'sluice:store', 'schema', new_schema)
end
return call('HMGET', 'sluice:store', 'id', 'schema')
""")

# Returns {'made' | 'found' | 'mismatch' | 'many' | 'erased' | 'replaced', id}; or, ``again`` and with a
# key that nobody has, {'unsure'}: the server may be another one now, which lacks who had it.
CREATE = _script(
    """
local store, id, worker, bell, count, payloads, key, fingerprint, request, owner, most, again = unpack(ARGV)
local theirs = 'sluice:theirs:' .. owner
if call('HGET', 'sluice:store', 'id') ~= store then return {'replaced'} end
if call('EXISTS', KEYS[1]) == 1 then return {'made', id} end  -- sent before, the answer was lost
if call('ZSCORE', 'sluice:erased', id) then return {'erased'} end
if key ~= '' then
  local taken = call('GET', 'sluice:key:' .. key)
  local other, print = string.match(taken or '', '^(%S+) (.*)$')
  if other and call('EXISTS', meta_of(other)) == 1 then
    if print ~= fingerprint then return {'mismatch'} end
    return {'found', other}
  end
  if again == '1' then return {'unsure'} end
end
most = tonumber(most)
if most > 0 and call('SCARD', theirs) >= most then
  for _, other in ipairs(call('SMEMBERS', theirs)) do
    if call('HGET', meta_of(other), 'state') ~= 'running' then call('SREM', theirs, other) end
  end
  if call('SCARD', theirs) >= most then return {'many'} end
end
if key ~= '' then call('SET', 'sluice:key:' .. key, id .. ' ' .. fingerprint, 'PX', KEY_MS) end
call('HSET', KEYS[1], 'state', 'running', 'gen', '1', 'seq', count, 'worker', worker, 'cancel', '0',
  'created', seconds(), 'key', key, 'request', request, 'owner', owner, 'bell', bell, 'token', '')
call('XADD', KEYS[2], count .. '-0', 'gen', '1', 'count', count, 'payloads', payloads)
call('PEXPIRE', KEYS[1], SAFETY_MS)
call('PEXPIRE', KEYS[2], SAFETY_MS)
call('SADD', 'sluice:running:' .. worker, id)
call('SADD', 'sluice:owners', worker)
if owner ~= '' then
  call('SADD', theirs, id)
  call('PEXPIRE', theirs, SAFETY_MS)
end
return {'made', id}
""",
    _SAFETY,
    _META,
    _SECONDS,
)

# Returns the id of the stream that has the key.
FIND = _script(
    """
local id = string.match(call('GET', KEYS[1]) or '', '^%S+')
return id and call('EXISTS', meta_of(id)) == 1 and id
""",
    _META,
)

# Returns 1 or 0, whether somebody asked to cancel; {'fenced'}; or {'behind', last}: events before
# these are missing, as after a failover that lost the newest ones.
APPEND = _script(
    """
local id, gen, before, last, count, payloads, ending, again, day, model = unpack(ARGV)
local held, seq, state, cancel, worker = unpack(
  call('HMGET', KEYS[1], 'gen', 'seq', 'state', 'cancel', 'worker'))
if not held then return false end
if held == gen and seq == before and state == 'running' then
  call('XADD', KEYS[2], last .. '-0', 'gen', gen, 'count', count, 'payloads', payloads)
  if ending == '' then
    call('HSET', KEYS[1], 'seq', last)
  else
    local time = call('TIME')
    local now = time[1] .. '.' .. string.format('%06d', time[2])
    call('HSET', KEYS[1], 'seq', last, 'state', ending, 'ended', now)
    call('SREM', 'sluice:running:' .. worker, id)
    call('SREM', 'sluice:cancels:' .. worker, id)
    call('ZADD', 'sluice:ended', now, id)
    call('PEXPIRE', KEYS[1], SAFETY_MS)
    call('PEXPIRE', KEYS[2], SAFETY_MS)
    local owner = call('HGET', KEYS[1], 'owner') or ''
    if owner ~= '' then call('SREM', 'sluice:theirs:' .. owner, id) end
    if day then account(owner, day, model) end
  end
  return tonumber(cancel)
end
if again == '1' and held == gen and seq == last and state == (ending == '' and 'running' or ending) then
  local entry = call('XRANGE', KEYS[2], last .. '-0', last .. '-0')[1]
  if entry and entry[2][2] == gen and entry[2][6] == payloads then return tonumber(cancel) end
end
if held == gen and state == 'running' and tonumber(seq) < tonumber(before) then return {'behind', seq} end
return {'fenced'}
""",
    _SAFETY,
    _ACCOUNT,
)

# Returns state, last seq, then id, gen, count and payloads of each batch.
READ = _script("""
local after, limit, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local state, last = unpack(call('HMGET', KEYS[1], 'state', 'seq'))
if not state then return false end
local reply = {state, last}
if tonumber(after) >= tonumber(last) then return reply end
local records, bytes, place = 0, 0, '(' .. after .. '-0'
repeat
  local entries = call('XRANGE', KEYS[2], place, '+', 'COUNT', 16)
  for _, entry in ipairs(entries) do
    local id, gen, count, payloads = entry[1], entry[2][2], entry[2][4], entry[2][6]
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3], reply[#reply + 4] = id, gen, count, payloads
    local new = math.min(tonumber(count), tonumber(string.match(id, '^%d+')) - after)
    records = records + new
    bytes = bytes + #payloads * new / count
    if records >= limit or bytes >= most_bytes then return reply end
    place = '(' .. id
  end
until #entries < 16
return reply
""")

# Returns the lease of the stream's owner.
OWNER = _script(
    """
local worker = call('HGET', KEYS[1], 'worker')
return worker and lease_of(worker)
""",
    _LEASE,
)

# ``dead`` is a worker known to be gone although its lease is not over. Returns {gen, last seq}, or {}.
TAKE_OVER = _script(
    """
local id, worker, bell, force, dead, token = unpack(ARGV)
local gen, seq, state, owner, cancel, old_bell, old_token = unpack(
  call('HMGET', KEYS[1], 'gen', 'seq', 'state', 'worker', 'cancel', 'bell', 'token'))
if not gen then return false end
if old_token == token then return {gen, seq} end  -- sent before, the answer was lost
if state ~= 'running' then return {} end
if force ~= '1' and owner ~= dead and lease_of(owner)[2] == 'held' then return {} end
gen = call('HINCRBY', KEYS[1], 'gen', 1)
call('HSET', KEYS[1], 'worker', worker, 'bell', bell, 'token', token)
call('SREM', 'sluice:running:' .. owner, id)
call('SREM', 'sluice:cancels:' .. owner, id)
call('SADD', 'sluice:running:' .. worker, id)
call('SADD', 'sluice:owners', worker)
if cancel == '1' then call('SADD', 'sluice:cancels:' .. worker, id) end
if old_bell ~= bell then ring(old_bell, id) end
return {gen, seq}
""",
    _LEASE,
    _RING,
)

REQUEST_CANCEL = _script("""
local state, worker = unpack(call('HMGET', KEYS[1], 'state', 'worker'))
if not state then return false end
if state == 'running' then
  call('HSET', KEYS[1], 'cancel', '1')
  call('SADD', 'sluice:cancels:' .. worker, ARGV[1])
end
return 1
""")

# Returns 0 when this is another store than the one asked for.
RENEW = _script(
    """
local store, worker, lease_ms, boot, namespace, pid, started = unpack(ARGV)
if call('HGET', 'sluice:store', 'id') ~= store then return 0 end
local key = 'sluice:worker:' .. worker
call('HSET', key, 'until', string.format('%.0f', milliseconds() + lease_ms),
  'boot', boot, 'namespace', namespace, 'pid', pid, 'started', started)
call('PEXPIRE', key, lease_ms + 3600000)
return 1
""",
    _MILLISECONDS,
)

# Returns the lease of each worker that has running streams.
OWNERS = _script(
    """
local leases = {}
for _, worker in ipairs(call('SMEMBERS', 'sluice:owners')) do
  if call('EXISTS', 'sluice:running:' .. worker) == 0 then
    call('SREM', 'sluice:owners', worker)
  else
    leases[#leases + 1] = lease_of(worker)
  end
end
return leases
""",
    _LEASE,
)

# Returns a worker's running streams; those that are no more are dropped from its set.
RUNNING = _script(
    """
local found = {}
for _, id in ipairs(call('SMEMBERS', KEYS[1])) do
  if call('EXISTS', meta_of(id)) == 1 then found[#found + 1] = id else call('SREM', KEYS[1], id) end
end
return found
""",
    _META,
)

ATTEND = _script(
    """
local worker, read_ms = ARGV[1], tonumber(ARGV[2])
if call('EXISTS', KEYS[1]) == 0 then return false end
if read_ms > 0 then
  local noted = tonumber(call('HGET', KEYS[2], worker) or '0')
  call('HSET', KEYS[2], worker, string.format('%.0f', math.max(noted, milliseconds() + read_ms)))
  call('PEXPIRE', KEYS[2], SAFETY_MS)
else
  call('HDEL', KEYS[2], worker)
end
return 1
""",
    _SAFETY,
    _MILLISECONDS,
)

# Returns the leases of the workers whose note still counts, each after the place of the key it is noted in.
READERS = _script(
    """
local leases, now = {}, milliseconds()
for place, key in ipairs(KEYS) do
  local row = call('HGETALL', key)
  for at = 1, #row, 2 do
    if tonumber(row[at + 1]) > now then leases[#leases + 1] = {place, unpack(lease_of(row[at]))} end
  end
end
return leases
""",
    _LEASE,
)

ERASE = _script(
    """
local state = call('HGET', KEYS[1], 'state')
if not state then
  return ARGV[2] == '1' and call('ZSCORE', 'sluice:erased', ARGV[1]) and 1  -- the answer was lost
end
if state == 'running' then return 0 end
forget(ARGV[1])
return 1
""",
    _FORGET,
)

# Returns how many streams were erased, and how many erased ones forgotten.
EXPIRE = _script(
    """
local ended_before, erased_before, batch = unpack(ARGV)
local function older(key, before)
  return call('ZRANGE', key, '-inf', '(' .. before, 'BYSCORE', 'LIMIT', 0, batch)
end
local ended = older('sluice:ended', ended_before)
for _, id in ipairs(ended) do forget(id) end
local erased = older('sluice:erased', erased_before)
for _, id in ipairs(erased) do call('ZREM', 'sluice:erased', id) end
return #ended + #erased
""",
    _FORGET,
)

RING = _script("ring(ARGV[1], '') return 1", _RING)

"""What runs inside the Redis server for threads: one Lua script for each change that must happen whole.

Keys, all below ``sluice:`` so that an ACL can name them::

    thread:<id>             hash: owner kind title created updated about
    thread:<id>:order       sorted set of its items by the place they were added at
    thread:<id>:bodies      hash: item -> body
    thread:<id>:facts       hash: item -> its kind, created, parent and settled, as JSON
    thread:<id>:open        set of its items that are not settled
    threads:<kind>:<owner>  sorted set of threads by when they were last updated
    threads                 the same of all
    unsettled               sorted set of "<thread> <item>" by when the item was made

They have no time to live: ``EXPIRE`` deletes what is old.
"""

from streaming.eventlogs._redis_scripts import Script, named

ALL: list[Script] = []


def _script(body: str, *shared: str) -> Script:
    ALL.append(named("local call = redis.call\n" + "".join(shared) + body))
    return ALL[-1]


_TOUCH = """
local function touch(id, at)
  local key = 'sluice:thread:' .. id
  local owner, kind, updated = unpack(call('HMGET', key, 'owner', 'kind', 'updated'))
  if tonumber(at) > tonumber(updated) then
    call('HSET', key, 'updated', at)
    call('ZADD', 'sluice:threads:' .. kind .. ':' .. owner, at, id)
    call('ZADD', 'sluice:threads', at, id)
  end
end
"""
_PUT = (
    _TOUCH
    + """
local function put(thread, id, created, facts, body, settled)
  local key = 'sluice:thread:' .. thread
  if not call('ZSCORE', key .. ':order', id) then
    local last = call('ZRANGE', key .. ':order', -1, -1, 'WITHSCORES')
    call('ZADD', key .. ':order', last[2] and last[2] + 1 or 1, id)
    touch(thread, created)
  end
  call('HSET', key .. ':facts', id, facts)
  call('HSET', key .. ':bodies', id, body)
  if settled == '1' then
    call('SREM', key .. ':open', id)
    call('ZREM', 'sluice:unsettled', thread .. ' ' .. id)
  else
    call('SADD', key .. ':open', id)
    call('ZADD', 'sluice:unsettled', created, thread .. ' ' .. id)
  end
end
"""
)
_DELETE = """
local function delete(thread)
  local key = 'sluice:thread:' .. thread
  local owner, kind = unpack(call('HMGET', key, 'owner', 'kind'))
  if owner then call('ZREM', 'sluice:threads:' .. kind .. ':' .. owner, thread) end
  for _, id in ipairs(call('SMEMBERS', key .. ':open')) do
    call('ZREM', 'sluice:unsettled', thread .. ' ' .. id)
  end
  call('ZREM', 'sluice:threads', thread)
  call('UNLINK', key, key .. ':order', key .. ':bodies', key .. ':facts', key .. ':open')
end
"""

CREATE = _script("""
local id, owner, kind, title, created, updated, about = unpack(ARGV)
local key = 'sluice:thread:' .. id
if call('EXISTS', key) == 0 then
  call('HSET', key, 'owner', owner, 'kind', kind, 'title', title, 'created', created, 'updated', updated,
    'about', about)
  call('ZADD', 'sluice:threads:' .. kind .. ':' .. owner, updated, id)
  call('ZADD', 'sluice:threads', updated, id)
end
return call('HMGET', key, 'owner', 'kind', 'title', 'created', 'updated', 'about')
""")

# Returns 0 for an unknown thread.
SAVE = _script(
    """
local id, title, updated, about = unpack(ARGV)
local key = 'sluice:thread:' .. id
if call('EXISTS', key) == 0 then return 0 end
call('HSET', key, 'title', title, 'about', about)
touch(id, updated)
return 1
""",
    _TOUCH,
)

# Returns false where ``after`` is an unknown thread; else id, owner, kind and so on of each.
LISTED = _script("""
local owner, kind, after, limit = unpack(ARGV)
local key = 'sluice:threads:' .. kind .. ':' .. owner
local from = 0
if after ~= '' then
  local updated = call('HGET', 'sluice:thread:' .. after, 'updated')
  if not updated then return false end
  local rank = call('ZREVRANK', key, after)
  from = rank and rank + 1 or call('ZCOUNT', key, '(' .. updated, '+inf')
end
local found = {}
for _, id in ipairs(call('ZRANGE', key, from, from + limit - 1, 'REV')) do
  local row = call('HMGET', 'sluice:thread:' .. id, 'owner', 'kind', 'title', 'created', 'updated', 'about')
  found[#found + 1] = {id, unpack(row)}
end
return found
""")

DELETE = _script("delete(ARGV[1]) return 1", _DELETE)

# Returns 0 for an unknown thread.
PUT = _script(
    """
local thread, id, created, facts, body, settled = unpack(ARGV)
if call('EXISTS', 'sluice:thread:' .. thread) == 0 then return 0 end
put(thread, id, created, facts, body, settled)
return 1
""",
    _PUT,
)

# Returns 0 for an unknown thread, 1 when it was added, or was there; 2 when it cannot be.
CLAIM = _script(
    """
local thread, id, created, facts, body, newest = unpack(ARGV)
local key = 'sluice:thread:' .. thread
if call('EXISTS', key) == 0 then return 0 end
if call('ZSCORE', key .. ':order', id) then return 1 end
local last = call('ZRANGE', key .. ':order', -1, -1)[1] or ''
if last ~= newest or call('SCARD', key .. ':open') > 0 then return 2 end
put(thread, id, created, facts, body, '0')
return 1
""",
    _PUT,
)

SETTLE = _script("""
local thread, id, body = unpack(ARGV)
local key = 'sluice:thread:' .. thread
if call('SREM', key .. ':open', id) == 0 then return 0 end
call('ZREM', 'sluice:unsettled', thread .. ' ' .. id)
call('HSET', key .. ':bodies', id, body)
return 1
""")

# Returns id, facts, body and whether it is open, of each item.
ITEMS = _script("""
local key, wants, only = 'sluice:thread:' .. ARGV[1], ARGV[2], ARGV[3]
local found = {}
local ids = only ~= '' and {only} or call('ZRANGE', key .. ':order', 0, -1)
for _, id in ipairs(ids) do
  local facts = call('HGET', key .. ':facts', id)
  if facts then
    local body = wants == 'bodies' and call('HGET', key .. ':bodies', id) or ''
    found[#found + 1] = {id, facts, body, call('SISMEMBER', key .. ':open', id)}
  end
end
return found
""")

REMOVE = _script("""
local thread, id = unpack(ARGV)
local key = 'sluice:thread:' .. thread
call('ZREM', key .. ':order', id)
call('HDEL', key .. ':facts', id)
call('HDEL', key .. ':bodies', id)
call('SREM', key .. ':open', id)
call('ZREM', 'sluice:unsettled', thread .. ' ' .. id)
return 1
""")

EXPIRE = _script(
    """
local old = call('ZRANGE', 'sluice:threads', '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
for _, id in ipairs(old) do delete(id) end
return #old
""",
    _DELETE,
)

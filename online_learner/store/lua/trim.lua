#!lua flags=allow-oom
-- Trim what nobody needs any more: whole nodes of the streams, by MINID, one portion.
-- KEYS  checkpoint:learner, checkpoint:gatekeeper, released, trimmed, predictions, audits, feedback,
--       steps, quarantine, served, evidence, checkpoint:learner:before, asked, late, archive
-- ARGV  the oldest entries that have to stay in the log, and in the evidence; how many entries of
--       each stream may go now; the oldest signal that has to stay; 1 where the log goes on file:
--       then only what is there may go
-- Returns how many entries went.
local want = {'hash', 'hash', 'hash', 'hash', [12] = 'hash', [15] = 'hash'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= (want[i] or 'stream') and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end

local function is_before(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if a_ms ~= b_ms then return tonumber(a_ms) < tonumber(b_ms) end
  return tonumber(a_seq) < tonumber(b_seq)
end
local function earlier(a, b) return is_before(a, b) and a or b end
local function first(key) return (redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1] or {})[1] end
-- Nothing that is read here was verified: what is no entry is nil, and then nothing goes that
-- depends on it.
local function place(text)
  local ms, seq = string.match(type(text) == 'string' and text or '', '^(%d+)%-(%d+)$')
  return ms and #ms <= 15 and #seq <= 15 and text or nil
end
local function state(key, name)
  local read, doc = pcall(cjson.decode, redis.call('HGET', key, 'meta') or '{}')
  return read and type(doc) == 'table' and place(doc[name] or '0-0') or nil
end

-- What the learner reads again after a crash: all after its published state, or after the second
-- one where the published one is damaged, and what operators released since.
local learned = state(KEYS[1], 'offset') or '0-0'
if redis.call('EXISTS', KEYS[12]) == 1 then
  learned = earlier(learned, state(KEYS[12], 'offset') or '0-0')
end
local floor = earlier(ARGV[1], learned)
local released, over = redis.call('HGETALL', KEYS[3]), {}
for i = 1, #released, 2 do
  local by = place(string.match(released[i + 1], '%S+$'))
  if not by or is_before(learned, by) then
    floor = earlier(floor, place(released[i]) or '0-0')
  else
    over[#over + 1] = released[i]
  end
end
-- What the gatekeeper does: the audits that have not settled, and what was said since the first.
local settled = state(KEYS[2], 'settled')
if not settled then floor = '0-0' end
local open = redis.call('XRANGE', KEYS[6], '(' .. (settled or '0-0'), '+', 'COUNT', 1)[1]
if open then
  local ms = tonumber(string.match(open[1], '^%d+'))
  floor = earlier(floor, string.format('%.0f-0', math.max(0, ms - 1)))
end

-- What has to go on file first: all after the last entry that is there. Of what was never archived,
-- that is all.
local function filed(least, key, stream)
  if ARGV[5] ~= '1' then return least end
  local mark = redis.call('HGET', KEYS[15], stream)
  if mark and not place(mark) then return '0-0' end
  local waiting = redis.call('XRANGE', key, '(' .. (mark or '0-0'), '+', 'COUNT', 1)[1]
  return waiting and earlier(least, waiting[1]) or least
end

local gone = 0
local function trim(key, least, stream)
  -- It went on file once, and does not now: what goes of the rest is missing there.
  local mark = stream and ARGV[5] ~= '1' and place(redis.call('HGET', KEYS[15], stream))
  local rest = mark and redis.call('XRANGE', key, '(' .. mark, '+', 'COUNT', 1)[1]
  local n = redis.call('XTRIM', key, 'MINID', '~', least, 'LIMIT', ARGV[3])
  gone = gone + n
  if n > 0 and rest then
    local begins = earlier(least, first(key) or least)
    if is_before(rest[1], begins) then redis.call('HSET', KEYS[15], 'begins:' .. stream, begins) end
  end
  return n > 0
end
local function note(name, least)
  local before = place(redis.call('HGET', KEYS[4], name))
  if not before or is_before(before, least) then redis.call('HSET', KEYS[4], name, least) end
end

local asked = filed(ARGV[1], KEYS[5], 'predictions')
if trim(KEYS[5], asked, 'predictions') then
  note('predictions', earlier(asked, first(KEYS[5]) or asked))
end
local late = filed(ARGV[1], KEYS[14], 'late')
if trim(KEYS[14], late, 'late') then note('late', earlier(late, first(KEYS[14]) or late)) end
trim(KEYS[13], ARGV[1])  -- a question is open no longer than its answer takes feedback
trim(KEYS[6], floor)
-- The steps that cover a signal, and all else that is told of it, stay as long as the signal: only
-- whole nodes go, so that some stay longer than they need to.
local told = {[7] = 'feedback', [8] = 'steps', [9] = 'quarantine'}
floor = earlier(floor, ARGV[4])
for i, stream in pairs(told) do floor = filed(floor, KEYS[i], stream) end
local some = trim(KEYS[7], floor, told[7])
local least = earlier(floor, first(KEYS[7]) or floor)
for i = 8, 10 do some = trim(KEYS[i], least, told[i]) or some end
if some then note('feedback', least) end
for _, entry in ipairs(over) do
  if is_before(place(entry) or '0-0', least) then redis.call('HDEL', KEYS[3], entry) end
end
local evidence = filed(ARGV[2], KEYS[11], 'evidence')
if trim(KEYS[11], evidence, 'evidence') then
  note('evidence', earlier(evidence, first(KEYS[11]) or evidence))
end
return gone

#!lua flags=allow-oom
-- Trim what nobody needs any more: whole nodes of the streams, by MINID, one portion.
-- KEYS  checkpoint:learner, checkpoint:gatekeeper, released, trimmed, predictions, audits, feedback,
--       steps, quarantine, served, evidence, checkpoint:learner:before, asked
-- ARGV  the oldest entries that have to stay in the log, and in the evidence; how many entries of
--       each stream may go now
-- Returns how many entries went.
local want = {'hash', 'hash', 'hash', 'hash', [12] = 'hash'}
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

local gone = 0
local function trim(key, least)
  local n = redis.call('XTRIM', key, 'MINID', '~', least, 'LIMIT', ARGV[3])
  gone = gone + n
  return n > 0
end
local function note(name, least)
  local before = place(redis.call('HGET', KEYS[4], name))
  if not before or is_before(before, least) then redis.call('HSET', KEYS[4], name, least) end
end

if trim(KEYS[5], ARGV[1]) then note('predictions', earlier(ARGV[1], first(KEYS[5]) or ARGV[1])) end
trim(KEYS[13], ARGV[1])  -- a question is open no longer than its answer takes feedback
trim(KEYS[6], floor)
-- The steps that cover a signal, and all else that is told of it, stay as long as the signal: only
-- whole nodes go, so that some stay longer than they need to.
local some = trim(KEYS[7], floor)
local least = earlier(floor, first(KEYS[7]) or floor)
for i = 8, 10 do some = trim(KEYS[i], least) or some end
if some then note('feedback', least) end
for _, entry in ipairs(over) do
  if is_before(place(entry) or '0-0', least) then redis.call('HDEL', KEYS[3], entry) end
end
if trim(KEYS[11], ARGV[2]) then note('evidence', earlier(ARGV[2], first(KEYS[11]) or ARGV[2])) end
return gone

#!lua
-- Lease questions to somebody, so that nobody else labels them meanwhile. Two who ask at once never
-- get the same one.
-- KEYS  leases: by entry 'until who' of the lease; by 'entry who' the moment up to which that one
--       is not given to that holder again; where it goes to each holder, and this one has it, behind
--       that until when; `cursor`, where the sweep goes on
-- ARGV  now and the end of the leases, in ms; how many at most; who; 'next', or 'these': then what
--       they hold already is theirs for longer; then for each question: entry, its own end in ms,
--       'alone', or 'each' where several may hold it at a time
-- Returns for each that is leased: entry, and until when.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. kind)
end
local SWEPT = 500  -- fields that are looked at each time: more than are added
local now, until_ms, most, who = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local function ends(value) return tonumber(string.match(value or '', '^%d+')) or 0 end
local function leased(mark) return tonumber(string.match(mark or '', '^%d+ (%d+)$')) end

local page = redis.call('HSCAN', KEYS[1], redis.call('HGET', KEYS[1], 'cursor') or '0', 'COUNT', SWEPT)
local swept = page[2]
for i = 1, #swept, 2 do
  if swept[i] ~= 'cursor' and ends(swept[i + 1]) <= now then
    redis.call('HDEL', KEYS[1], swept[i])
  end
end

local given, last = {}, 0
for at = 6, #ARGV, 3 do
  if #given >= 2 * most then break end
  local entry, ends_ms, each = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2] == 'each'
  local till = string.format('%.0f', math.min(until_ms, ends_ms))
  local lease, mark = redis.call('HGET', KEYS[1], entry), redis.call('HGET', KEYS[1], entry .. ' ' .. who)
  local held = leased(mark)
  local free = (each and (held or 0) or ends(lease)) <= now
  if not free and ARGV[5] == 'these' then free = held or string.match(lease, '%S+$') == who end
  if free and ends_ms > now and (held or ends(mark) <= now) then
    if each then
      redis.call('HSET', KEYS[1], entry .. ' ' .. who, ARGV[at + 1] .. ' ' .. till)
    else
      redis.call('HSET', KEYS[1], entry, till .. ' ' .. who)
    end
    last = math.max(last, ends_ms)
    given[#given + 1] = entry
    given[#given + 1] = till
  end
end

if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'cursor', page[1])
  local left = math.max(redis.call('PTTL', KEYS[1]), last - now, 1)
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left))
end
return given

#!lua
-- Release what was set aside or rolled back: one control entry, which the learner obeys. All or none.
-- KEYS  aliases, feedback, released, retracted
-- ARGV  the lineage under which the caller looked, the control entry, then for each entry released:
--       itself, and the releases of it that the caller knew of ('' or 'id id ...')
-- Returns {'ok', the control's entry}; {'conflict'} where the lineage has moved since;
-- {'released', entry ...} with those that somebody else has released since; {'retracted', entry ...}
-- with those that were taken back since.
local want = {'hash', 'stream', 'hash', 'hash'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= want[i] and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local doc = redis.call('HGET', KEYS[1], 'doc')
if not doc or (cjson.decode(doc).lineage or 1) ~= tonumber(ARGV[1]) then return {'conflict'} end
local taken = {'released'}
for at = 3, #ARGV, 2 do
  if (redis.call('HGET', KEYS[3], ARGV[at]) or '') ~= ARGV[at + 1] then
    taken[#taken + 1] = ARGV[at]
  end
end
if #taken > 1 then return taken end
local gone = {'retracted'}
for at = 3, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[4], ARGV[at]) == 1 then gone[#gone + 1] = ARGV[at] end
end
if #gone > 1 then return gone end

local id = redis.call('XADD', KEYS[2], '*', 'c', ARGV[2])
for at = 3, #ARGV, 2 do
  local before = ARGV[at + 1]
  redis.call('HSET', KEYS[3], ARGV[at], before == '' and id or (before .. ' ' .. id))
end
return {'ok', id}

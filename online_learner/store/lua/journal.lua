#!lua
-- Append answered requests, and what each role said to the audited ones.
-- KEYS  predictions, audits
-- ARGV  (nonce, record, audit or '') for each prediction
-- Returns the entry ids, in order.
for i = 1, 2 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local ids = {}
for i = 1, #ARGV, 3 do
  local id = redis.call('XADD', KEYS[1], '*', 'n', ARGV[i], 'r', ARGV[i + 1])
  if ARGV[i + 2] ~= '' then
    redis.call('XADD', KEYS[2], id, 'a', ARGV[i + 2])
  end
  ids[#ids + 1] = id
end
return ids

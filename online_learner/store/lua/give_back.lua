#!lua
-- Give leased questions back: to be leased again by anybody, or by anybody else.
-- KEYS  leases; see `lease`
-- ARGV  who; 'again', or 'never': then they are not given to this holder any more; then for each
--       question: entry, its end in ms
-- Returns how many of them this holder had.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. kind)
end
local who, had = ARGV[1], 0
for at = 3, #ARGV, 2 do
  local entry = ARGV[at]
  local lease = redis.call('HGET', KEYS[1], entry)
  if lease and string.match(lease, '%S+$') == who then
    redis.call('HDEL', KEYS[1], entry)
    if ARGV[2] == 'never' then redis.call('HSET', KEYS[1], entry .. ' ' .. who, ARGV[at + 1]) end
    had = had + 1
  elseif redis.call('HEXISTS', KEYS[1], entry .. ' ' .. who) == 1 then
    had = had + 1  -- one that goes to each once: it stays given
  end
end
return had

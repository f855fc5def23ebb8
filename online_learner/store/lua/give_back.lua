#!lua
-- Give leased questions back: to be leased again by anybody, or by anybody else.
-- KEYS  leases; see `lease`
-- ARGV  now in ms; who; 'again', or 'never': then they are not given to this holder any more; then
--       for each question: entry, its end in ms
-- Returns how many of them this holder had.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. kind)
end
local now, who, had = tonumber(ARGV[1]), ARGV[2], 0
for at = 4, #ARGV, 2 do
  local entry, mine = ARGV[at], ARGV[at] .. ' ' .. who
  local till, holder = string.match(redis.call('HGET', KEYS[1], entry) or '', '^(%d+) (%S+)$')
  if holder ~= who then
    till = string.match(redis.call('HGET', KEYS[1], mine) or '', '^%d+ (%d+)$')
  end
  if till and tonumber(till) > now then
    if holder == who then redis.call('HDEL', KEYS[1], entry) end
    if ARGV[3] == 'never' then
      redis.call('HSET', KEYS[1], mine, ARGV[at + 1])
    elseif holder ~= who then
      redis.call('HSET', KEYS[1], mine, ARGV[at + 1] .. ' 0')  -- they had it, and may have answered
    end
    had = had + 1
  end
end
return had

#!lua
-- Begin, hold or end the one job that a model may have at a time.
-- KEYS  the lock, jobs
-- ARGV  'begin', 'hold' or 'end'; whose it is; for how many ms the lock holds; the record, or
--       empty; how many records are kept
-- Returns 'ok'; 'taken' where another job has the lock: then nothing is written, but that one ended.
local want = {'string', 'stream'}
for i = 1, 2 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= want[i] and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local holder = redis.call('GET', KEYS[1])
local own = holder == ARGV[2]
if ARGV[1] == 'begin' and holder then return 'taken' end
if ARGV[1] == 'hold' and not own then return 'taken' end
if ARGV[4] ~= '' then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'j', ARGV[4])
end
if ARGV[1] ~= 'end' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
elseif own then
  redis.call('DEL', KEYS[1])
end
return own and 'ok' or (holder and 'taken' or 'ok')

#!lua flags=allow-oom
-- Put another memory beside the weights of a kept state, which stay.
-- KEYS  the state: a version, or a checkpoint
-- ARGV  its seal as it was read, then its metadata, the digests of its bytes, its seal, its memory
-- Returns 'ok'; 'conflict' where it is another one by now: nothing is written then.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. kind)
end
if redis.call('HGET', KEYS[1], 'mac') ~= ARGV[1] then return 'conflict' end
redis.call('HSET', KEYS[1], 'meta', ARGV[2], 'sha', ARGV[3], 'mac', ARGV[4], 'memory', ARGV[5])
return 'ok'

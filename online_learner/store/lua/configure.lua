#!lua flags=allow-oom
-- Write fields of the configuration, and count a version where anything has changed.
-- KEYS  the configuration
-- ARGV  how many fields go, their names; then name and value of each that is to be there
-- Returns the version.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. kind)
end
local gone, changed = tonumber(ARGV[1]), false
for i = 2, gone + 1 do changed = redis.call('HDEL', KEYS[1], ARGV[i]) == 1 or changed end
for i = gone + 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    changed = true
  end
end
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or 0)
if version > 0 and not changed then return version end
return redis.call('HINCRBY', KEYS[1], 'version', 1)

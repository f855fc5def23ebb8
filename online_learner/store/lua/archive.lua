#!lua flags=allow-oom
-- The list of the archive's files, and how far each stream has been archived.
-- KEYS  fence:archive, archive, segments, trimmed
-- ARGV  'begin', fence, then (stream, what is noted of it in `trimmed` or '') for each stream: gives
--           a stream that was never archived its place, and notes where its record begins
--       'commit', fence, stream, after, era, last, field, value: lists a file
--       'replace', field, value of before, value, era: lists another file in its place
-- Returns 'ok'; 'fenced' where a newer writer has taken over, 'moved' where the stream has been
-- archived further, or the file was replaced, 'rebuilt' where the era is another: a stream was
-- rebuilt since it was read, or files that were in no list were removed. Nothing is written then.
local want = {'string', 'hash', 'hash', 'hash'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= want[i] and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local what = ARGV[1]
if what == 'replace' then
  if redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[3] then return 'moved' end
  if (redis.call('HGET', KEYS[2], 'era') or '0') ~= ARGV[5] then return 'rebuilt' end
  redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
  redis.call('HINCRBY', KEYS[2], 'rewritten', 1)
  return 'ok'
end
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 'fenced' end
if what == 'begin' then
  for at = 3, #ARGV, 2 do
    if redis.call('HSETNX', KEYS[2], ARGV[at], '0-0') == 1 then
      local trimmed = ARGV[at + 1] ~= '' and redis.call('HGET', KEYS[4], ARGV[at + 1])
      if trimmed then redis.call('HSET', KEYS[2], 'begins:' .. ARGV[at], trimmed) end
    end
  end
  return 'ok'
end
local stream, after, era, last, field, value = unpack(ARGV, 3)
if (redis.call('HGET', KEYS[2], stream) or '0-0') ~= after then return 'moved' end
if (redis.call('HGET', KEYS[2], 'era') or '0') ~= era then return 'rebuilt' end
redis.call('HSET', KEYS[3], field, value)
redis.call('HSET', KEYS[2], stream, last)
return 'ok'

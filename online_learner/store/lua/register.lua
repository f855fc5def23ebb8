#!lua
-- Take in a version that was trained elsewhere; where nothing has been learned yet, as the champion.
-- KEYS  aliases, version:<n>, feedback, verdicts
-- ARGV  a JSON header, the weights' bytes
-- Returns 'ok'; 'conflict' where a version was cut, or the aliases have moved, since the caller
-- looked: nothing is written then.
local head = cjson.decode(ARGV[1])
local want = {'hash', 'hash', 'stream', 'stream'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= want[i] and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local known = redis.call('HMGET', KEYS[1], 'epoch', 'versions')
if known[1] ~= head.epoch or known[2] ~= head.after then return 'conflict' end

local version = head.version
redis.call('HSET', KEYS[2], 'meta', version.meta, 'sha', version.sha, 'mac', version.mac,
  'blob', ARGV[2], 'memory', '')
redis.call('HSET', KEYS[1], 'versions', head.number)
if head.aliases then
  redis.call('HSET', KEYS[1], 'doc', head.aliases.doc, 'mac', head.aliases.mac,
    'epoch', head.aliases.epoch)
  redis.call('XADD', KEYS[4], '*', 'v', head.verdict)
  redis.call('XADD', KEYS[3], '*', 'c', head.control)
  redis.call('PUBLISH', head.publish, 'aliases')
end
return 'ok'

#!lua flags=allow-oom
-- Keep what the observers know and report, with what follows from it: tables for the learner,
-- advice for gateways, alarms. All or nothing, and unless another process has observed meanwhile.
-- KEYS  observer, advice, alarms, quality, feedback, archive
-- ARGV  a JSON header, what they know, what they report; `era` is that of what was read for it
-- Returns 1, or 0 where another was faster, or a stream was rebuilt since it was read: what was
-- erased may be in what they know. Then nothing was written.
local head = cjson.decode(ARGV[1])
local want = {'hash', 'hash', 'stream', 'stream', 'stream', 'hash'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= want[i] and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
if (redis.call('HGET', KEYS[1], 'n') or '0') ~= head.after then return 0 end
if head.era and (redis.call('HGET', KEYS[6], 'era') or '0') ~= head.era then return 0 end

local seal = head.state
redis.call('HSET', KEYS[1], 'n', head.n, 'meta', seal.meta, 'sha', seal.sha, 'mac', seal.mac,
  'blob', ARGV[2], 'memory', ARGV[3])
for _, record in ipairs(head.alarms) do
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', head.most_alarms, '*', 'a', record)
end
if head.quality then
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', head.most_points, '*', 'q', head.quality)
end
if head.control then redis.call('XADD', KEYS[5], '*', 'c', head.control) end
if head.advice then
  local advice = head.advice
  redis.call('HSET', KEYS[2], 'meta', advice.meta, 'sha', advice.sha, 'mac', advice.mac)
  redis.call('PUBLISH', head.publish, 'advice')
end
return 1

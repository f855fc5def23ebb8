#!lua flags=allow-oom
-- Commit a decision, or the gatekeeper's progress, or both: evidence, verdicts, aliases, control.
-- KEYS  fence:gatekeeper, checkpoint:gatekeeper, evidence, verdicts, aliases, feedback, pinned,
--       checkpoint:learner, version:<n> for each version whose status changes
-- ARGV  a JSON header
-- Returns 'ok'; 'fenced' where a newer writer has taken over; 'conflict' where the aliases, or a
-- version, have changed since they were read. Nothing is written then.
local head = cjson.decode(ARGV[1])
if head.fence and redis.call('GET', KEYS[1]) ~= head.fence then return 'fenced' end
if head.epoch and redis.call('HGET', KEYS[5], 'epoch') ~= head.epoch then return 'conflict' end
local want = {'string', 'hash', 'stream', 'stream', 'hash', 'stream', 'hash', 'hash'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= (want[i] or 'hash') and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
for i, version in ipairs(head.versions or {}) do  -- another has changed it since it was read
  local was = version.was
  if was and redis.call('HGET', KEYS[8 + i], 'mac') ~= was then return 'conflict' end
end
if head.pin then  -- weights that a learner published before it heard of a reset are not pinned
  local meta = redis.call('HGET', KEYS[8], 'meta')
  if not meta or (cjson.decode(meta).lineage or 1) ~= head.pin then return 'conflict' end
end

for _, item in ipairs(head.evidence or {}) do
  redis.call('XADD', KEYS[3], item[1], 'e', item[2])
end
for _, verdict in ipairs(head.verdicts or {}) do
  redis.call('XADD', KEYS[4], '*', 'v', verdict)
end
if head.state then
  redis.call('HSET', KEYS[2], 'meta', head.state.meta, 'sha', head.state.sha, 'mac', head.state.mac)
end
for i, version in ipairs(head.versions or {}) do
  if version.drop then
    redis.call('HDEL', KEYS[8 + i], 'blob', 'memory')
  end
  redis.call('HSET', KEYS[8 + i], 'meta', version.meta, 'sha', version.sha, 'mac', version.mac)
end
if head.pin then
  local state = redis.call('HGETALL', KEYS[8])
  redis.call('HSET', KEYS[7], unpack(state))
end
if head.aliases then
  redis.call('HSET', KEYS[5], 'doc', head.aliases.doc, 'mac', head.aliases.mac,
    'epoch', head.aliases.epoch)
end
if head.control then redis.call('XADD', KEYS[6], '*', 'c', head.control) end
if head.publish then redis.call('PUBLISH', head.publish, 'aliases') end
return 'ok'

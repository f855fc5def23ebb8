#!lua
-- Commit what the learner did: steps, what it set aside, and now and then its full state.
-- KEYS  fence:learner, steps, quarantine, checkpoint:learner, aliases, version:<n> (only to cut one)
-- ARGV  a JSON header, the state's bytes
-- Returns 'ok', or 'fenced' where a newer writer has taken over. Nothing is written then.
local head = cjson.decode(ARGV[1])
if redis.call('GET', KEYS[1]) ~= head.fence then return 'fenced' end
if head.version and redis.call('HGET', KEYS[5], 'versions') ~= head.version.after then
  return 'conflict'
end
local want = {'string', 'stream', 'stream', 'hash', 'hash', 'hash'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= want[i] and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end

for _, step in ipairs(head.steps) do
  redis.call('XADD', KEYS[2], step.id, 's', step.record)
end
for _, item in ipairs(head.quarantine) do
  redis.call('XADD', KEYS[3], '*', 'e', item.entry, 'q', item.record)
end
if head.checkpoint then
  local state = head.checkpoint
  redis.call('HSET', KEYS[4], 'meta', state.meta, 'sha', state.sha, 'mac', state.mac, 'blob', ARGV[2])
end
if head.version then
  local cut = head.version
  redis.call('HSET', KEYS[6], 'meta', cut.meta, 'sha', cut.sha, 'mac', cut.mac, 'blob', ARGV[2])
  redis.call('HSET', KEYS[5], 'versions', cut.number)
end
if head.publish then redis.call('PUBLISH', head.publish, 'weights') end
return 'ok'

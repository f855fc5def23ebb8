#!lua flags=allow-oom
-- Commit what the learner did: steps, what it set aside, and now and then its full state.
-- KEYS  fence:learner, steps, quarantine, checkpoint:learner, aliases, resets,
--       checkpoint:learner:before, version:<n> (only to cut one)
-- ARGV  a JSON header, the weights' bytes, those of the memory; `keep` writes them twice, so that
--       damage to one leaves the other
-- Returns 'ok'; 'old' where the weights are of a lineage that was pulled meanwhile: the steps stand,
-- since they come before the reset in the stream, but no version is cut and nobody is told;
-- 'fenced' where a newer writer has taken over, 'conflict' where a version of that number exists:
-- nothing is written then.
local head = cjson.decode(ARGV[1])
if redis.call('GET', KEYS[1]) ~= head.fence then return 'fenced' end
local want = {'string', 'stream', 'stream', 'hash', 'hash', 'stream', 'hash', 'hash'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= want[i] and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local current = true
if head.publish then
  local doc = redis.call('HGET', KEYS[5], 'doc')
  current = doc and (cjson.decode(doc).lineage or 1) == head.lineage -- left out where it is 1
end
local cut = current and head.version
if cut and redis.call('HGET', KEYS[5], 'versions') ~= cut.after then return 'conflict' end

for _, step in ipairs(head.steps) do
  redis.call('XADD', KEYS[2], step.id, 's', step.record)
end
for _, item in ipairs(head.quarantine) do
  redis.call('XADD', KEYS[3], item.entry, 'e', item.entry, 'q', item.record)
end
if head.reset then
  redis.call('XADD', KEYS[6], head.reset.id, 'r', head.reset.record)
end
local function write(key, seal)
  redis.call('HSET', key, 'meta', seal.meta, 'sha', seal.sha, 'mac', seal.mac, 'blob', ARGV[2],
    'memory', ARGV[3] or '')
end
if head.checkpoint then
  write(KEYS[4], head.checkpoint)
  if head.keep then write(KEYS[7], head.checkpoint) end
end
if cut then
  write(KEYS[8], cut)
  redis.call('HSET', KEYS[5], 'versions', cut.number)
end
if not current then return 'old' end
if head.publish then redis.call('PUBLISH', head.publish, 'weights') end
return 'ok'

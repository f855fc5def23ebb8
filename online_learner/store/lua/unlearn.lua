#!lua flags=allow-oom
-- Put weights that were learned without some signals in the place of those that had learned them:
-- the learner's newest state, the second one, and every kept state that had. All or nothing.
-- KEYS  fence:learner, steps, checkpoint:learner, checkpoint:learner:before, aliases, verdicts,
--       unlearned, then for each kept state: its hash, and the one in which the new one waits
-- ARGV  a JSON header, the weights' bytes, those of the memory, then the signals
-- Returns 'ok'; 'fenced' where a newer writer has taken over; 'conflict' where the aliases or a
-- kept state have changed since they were read, or what waited is gone: nothing is written then.
local head = cjson.decode(ARGV[1])
if head.aliases == cjson.null then head.aliases = nil end
if redis.call('GET', KEYS[1]) ~= head.fence then return 'fenced' end
local want = {'string', 'stream', 'hash', 'hash', 'hash', 'stream', 'hash'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= (want[i] or 'hash') and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
if head.aliases and redis.call('HGET', KEYS[5], 'epoch') ~= head.epoch then return 'conflict' end
for i, state in ipairs(head.states) do
  if redis.call('HGET', KEYS[6 + 2 * i], 'mac') ~= state.was then return 'conflict' end
  if state.waits and redis.call('HEXISTS', KEYS[7 + 2 * i], 'blob') == 0 then return 'conflict' end
end

redis.call('XADD', KEYS[2], head.step.id, 's', head.step.record)
for _, key in ipairs({KEYS[3], KEYS[4]}) do
  redis.call('HSET', key, 'meta', head.checkpoint.meta, 'sha', head.checkpoint.sha,
    'mac', head.checkpoint.mac, 'blob', ARGV[2], 'memory', ARGV[3])
end
for i, state in ipairs(head.states) do
  local key, waiting = KEYS[6 + 2 * i], KEYS[7 + 2 * i]
  if state.waits then
    redis.call('RENAME', waiting, key)
    redis.call('PERSIST', key)
  end
  redis.call('HSET', key, 'meta', state.meta, 'sha', state.sha, 'mac', state.mac)
end
for at = 4, #ARGV do redis.call('HSET', KEYS[7], ARGV[at], head.step.id) end
if head.aliases then
  redis.call('HSET', KEYS[5], 'doc', head.aliases.doc, 'mac', head.aliases.mac,
    'epoch', head.aliases.epoch)
  redis.call('XADD', KEYS[6], '*', 'v', head.verdict)
end
redis.call('PUBLISH', head.publish, head.aliases and 'aliases' or 'weights')
return 'ok'

#!lua flags=allow-oom
-- Take back signals: mark those that are not yet, and tell the learner by one control entry.
-- KEYS  retracted, feedback, unlearned, then for each mark of `said`: its hash
-- ARGV  the control entry without its `entries` as JSON, or '' for signals that only went on file;
--       how many signals; the signals; then for each mark: its field, and the entry it leads to
-- Returns {the control's entry, or '', signal ...} with those that had not been taken back before.
-- What only went on file was never learned: it counts as unlearned, by no entry ('0-0').
local want = {'hash', 'stream', 'hash'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= (want[i] or 'hash') and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local told, n, fresh = ARGV[1] ~= '', tonumber(ARGV[2]), {}
for at = 3, 2 + n do
  if redis.call('HEXISTS', KEYS[1], ARGV[at]) == 0 then fresh[#fresh + 1] = ARGV[at] end
end
local id = ''
if #fresh > 0 and told then
  local control = cjson.decode(ARGV[1])
  control.entries = fresh
  id = redis.call('XADD', KEYS[2], '*', 'c', cjson.encode(control))
end
for _, entry in ipairs(fresh) do
  redis.call('HSET', KEYS[1], entry, told and id or '0-0')
  if not told then redis.call('HSET', KEYS[3], entry, '0-0') end
end
-- The same source may say the same again: that is a signal of its own then, and no copy.
for i = 4, #KEYS do
  local at = 3 + n + 2 * (i - 4)
  local mark = redis.call('HGET', KEYS[i], ARGV[at])
  local place = mark and string.match(mark, '^%x+(|.*)$')
  if place and string.find(place, '|' .. ARGV[at + 1] .. '|', 1, true) == 1 then
    redis.call('HSET', KEYS[i], ARGV[at], '0' .. place)
  end
end
return {id, unpack(fresh)}

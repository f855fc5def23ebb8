#!lua
-- Copy a stream under the same ids, with some entries emptied, changed or left out; then put the
-- copy in its place. The old one goes as a whole: of what is deleted entry by entry, the bytes stay.
-- KEYS  the stream, its copy under way, the old one for the moment of the exchange, the lock, archive
--       (there `era` moves, so that nobody files what they had read before)
-- ARGV  'begin', 'copy' or 'finish'; the token of the lock; the entry after which to go on, and the
--       last one ('+' for all); how many entries at most; for how many ms the copy lives; 'exact'
--       where nothing is left out; then for each entry that does not stay as it is: its id, 'x'
--       (nothing of it stays), 'drop' (it is left out) or 'put'; then a field and its value from
--       then on; one that has several such fields stands there several times
-- Returns 'ok'; 'lost' where another holds the lock; 'more' where more is left than may be copied at
-- once; 'unequal' where the copy is not as long as the stream: then the stream is as it was.
if redis.call('GET', KEYS[4]) ~= ARGV[2] then return 'lost' end
local want = {'stream', 'stream', 'stream', 'string', 'hash'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= want[i] and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local mode, after, last, most = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5])
if mode == 'begin' then
  redis.call('DEL', KEYS[2])
  redis.call('XGROUP', 'CREATE', KEYS[2], 'none', '$', 'MKSTREAM')  -- a stream without entries
  redis.call('XGROUP', 'DESTROY', KEYS[2], 'none')
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
  return 'ok'
end
if redis.call('EXISTS', KEYS[2]) == 0 then return 'lost' end

local changes = {}
for at = 8, #ARGV, 4 do
  local change = changes[ARGV[at]] or {act = ARGV[at + 1], puts = {}}
  change.puts[ARGV[at + 2]] = ARGV[at + 3]
  changes[ARGV[at]] = change
end
local found = redis.call('XRANGE', KEYS[1], '(' .. after, last, 'COUNT', most + 1)
if mode == 'finish' and #found > most then return 'more' end
for i = 1, math.min(most, #found) do
  local id, fields = found[i][1], found[i][2]
  local change = changes[id]
  local act = change and change.act
  if act == 'x' then
    fields = {'x', '1'}
  elseif act == 'put' then
    for at = 1, #fields, 2 do
      if change.puts[fields[at]] then
        fields[at + 1] = change.puts[fields[at]]
        change.puts[fields[at]] = nil
      end
    end
    for name, value in pairs(change.puts) do
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  if act ~= 'drop' then redis.call('XADD', KEYS[2], id, unpack(fields)) end
end
redis.call('PEXPIRE', KEYS[2], ARGV[6])
if mode == 'copy' then return 'ok' end

local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if first then  -- what was trimmed meanwhile
  redis.call('XTRIM', KEYS[2], 'MINID', first[1])
else
  redis.call('XTRIM', KEYS[2], 'MAXLEN', 0)
end
local long, copied = redis.call('XLEN', KEYS[1]), redis.call('XLEN', KEYS[2])
if copied > long or (ARGV[7] == 'exact' and copied ~= long) then return 'unequal' end
local info, facts = redis.call('XINFO', 'STREAM', KEYS[1]), {}
for at = 1, #info, 2 do facts[info[at]] = info[at + 1] end
redis.call('XSETID', KEYS[2], facts['last-generated-id'], 'ENTRIESADDED', facts['entries-added'],
  'MAXDELETEDID', facts['max-deleted-entry-id'])
redis.call('PERSIST', KEYS[2])
redis.call('RENAME', KEYS[1], KEYS[3])
redis.call('RENAME', KEYS[2], KEYS[1])
redis.call('UNLINK', KEYS[3])
redis.call('HINCRBY', KEYS[5], 'era', 1)
return 'ok'

#!lua
-- Append answered requests, what each role said to the audited ones, which others a label is asked
-- for, what rules said of them, where they can be found by other names, and which weights answered
-- for the first time.
-- KEYS  predictions, audits, feedback, served, asked, then a list for each other name
-- ARGV  seconds to remember other names, then for each prediction:
--       nonce, record, audit or '', question or '', first answer of these weights or '', indexes
--       into KEYS of its other names ('6 7' or ''; after 'once 7 ' nothing is appended where an
--       answer is known by the name at that index), number of flags, then (signal, nonce) for each
-- Returns the entry ids, in order; of an answer that was known, 'id|nonce'.
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  local want = i <= 5 and 'stream' or 'list'
  if kind ~= want and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end
local ids = {}
local at = 2
while at <= #ARGV do
  local nonce, record, audit, question = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local served, names, flags = ARGV[at + 4], ARGV[at + 5], tonumber(ARGV[at + 6])
  local id
  if names ~= '' then
    local name, rest = string.match(names, '^once (%d+) (.*)$')
    if name then
      names = rest
      id = redis.call('LINDEX', KEYS[tonumber(name)], 0)
    end
  end
  at = at + 7
  if not id then
    id = redis.call('XADD', KEYS[1], '*', 'n', nonce, 'r', record)
    if audit ~= '' then redis.call('XADD', KEYS[2], id, 'a', audit) end
    if question ~= '' then redis.call('XADD', KEYS[5], id, 'q', question) end
    if served ~= '' then redis.call('XADD', KEYS[4], id, 'w', served) end
    for index in string.gmatch(names, '%d+') do
      local key = KEYS[tonumber(index)]
      redis.call('LPUSH', key, id .. '|' .. nonce)
      redis.call('LTRIM', key, 0, 15)
      redis.call('EXPIRE', key, ARGV[1])
    end
    for flag = at, at + 2 * flags - 1, 2 do
      redis.call('XADD', KEYS[3], '*', 'n', ARGV[flag + 1], 'f', ARGV[flag], 'p', id, 'r', record)
    end
  end
  at = at + 2 * flags
  ids[#ids + 1] = id
end
return ids

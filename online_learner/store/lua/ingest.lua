#!lua
-- Accept one signal: join it to its prediction, refuse a second copy, append. All or nothing.
-- KEYS  predictions, feedback, standing, seen (only with an idempotency key)
-- ARGV  prediction entry, its nonce, digest of the signal, digest of the body, signal, nonce of
--       the feedback entry, seconds to remember, the version expected or '', 'dry' or ''
-- Returns {status, feedback entry, its nonce}; status is accepted, duplicate, reused, unknown, or
-- mismatch (then with the version in the entry's place). A dry run is accepted and writes nothing.
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  local want = i <= 2 and 'stream' or 'string'
  if kind ~= want and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end

local function recall(key)
  local value = redis.call('GET', key)
  if not value then return nil end
  return string.match(value, '^(%x+)|([%d-]+)|(%x+)$')
end

if KEYS[4] then
  local digest, entry, nonce = recall(KEYS[4])
  if digest then
    if digest == ARGV[4] then return {'duplicate', entry, nonce} end
    return {'reused', entry, nonce}
  end
end

local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not found or found[2][2] ~= ARGV[2] then return {'unknown', '', ''} end
if ARGV[8] ~= '' then
  local version = string.format('%d', cjson.decode(found[2][4]).version)
  if version ~= ARGV[8] then return {'mismatch', version, ''} end
end
if ARGV[9] == 'dry' then return {'accepted', '', ''} end

local digest, entry, nonce = recall(KEYS[3])
if digest == ARGV[3] and not KEYS[4] then return {'duplicate', entry, nonce} end

local fields = {'n', ARGV[6], 'f', ARGV[5], 'p', ARGV[1], 'r', found[2][4]}
if entry then
  fields[#fields + 1] = 's'
  fields[#fields + 1] = entry
end
local id = redis.call('XADD', KEYS[2], '*', unpack(fields))
local mark = '|' .. id .. '|' .. ARGV[6]
redis.call('SET', KEYS[3], ARGV[3] .. mark, 'EX', ARGV[7])
if KEYS[4] then redis.call('SET', KEYS[4], ARGV[4] .. mark, 'EX', ARGV[7]) end
return {'accepted', id, ARGV[6]}

#!lua
-- Accept what was said about one answer: join it, refuse a second copy, append. All or nothing.
-- KEYS  predictions, feedback, said, said of the second prediction (the same where there is none),
--       seen (only with an idempotency key)
-- ARGV  prediction entry, its nonce, second prediction's entry or '', its nonce, digest of the body,
--       seconds to remember what is said of each, the version expected or '', 'dry' or '', then for
--       each signal: field in `said`, digest, signal, nonce of the feedback entry
-- Returns the status, then for each signal {status, feedback entry, its nonce}. The status is
-- accepted, duplicate, reused, unknown, or mismatch (then with the version). A dry run is accepted
-- and writes nothing.
local want = {'stream', 'stream', 'hash', 'hash', 'string'}
for i = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= want[i] and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end

local function fetch(entry, nonce)
  local found = redis.call('XRANGE', KEYS[1], entry, entry)[1]
  if found and found[2][2] == nonce then return found[2][4] end
end

if KEYS[5] then
  local seen = redis.call('GET', KEYS[5])
  if seen then
    local digest, rest = string.match(seen, '^(%x+)(.*)$')
    local reply = {digest == ARGV[5] and 'duplicate' or 'reused'}
    for entry, nonce in string.gmatch(rest, '|([%d-]+)|(%x+)') do
      reply[#reply + 1] = {'duplicate', entry, nonce}
    end
    return reply
  end
end

local record = fetch(ARGV[1], ARGV[2])
local other = ARGV[3] ~= '' and fetch(ARGV[3], ARGV[4])
if not record or (ARGV[3] ~= '' and not other) then return {'unknown'} end
if ARGV[8] ~= '' then
  local made = cjson.decode(record)
  local version = made.model_version or string.format('%d', made.version)
  if version ~= ARGV[8] then return {'mismatch', version} end
end
if ARGV[9] == 'dry' then return {'accepted'} end

local reply, news, mark = {'duplicate'}, 0, ARGV[5]
for at = 10, #ARGV, 4 do
  local before = redis.call('HGET', KEYS[3], ARGV[at])
  local digest, entry, nonce
  if before then digest, entry, nonce = string.match(before, '^(%x+)|([%d-]+)|(%x+)$') end
  if digest == ARGV[at + 1] and not KEYS[5] then
    reply[#reply + 1] = {'duplicate', entry, nonce}
  else
    local fields = {'n', ARGV[at + 3], 'f', ARGV[at + 2], 'p', ARGV[1], 'r', record}
    if other then
      fields[#fields + 1] = 'o'
      fields[#fields + 1] = other
    end
    if entry then
      fields[#fields + 1] = 's'
      fields[#fields + 1] = entry
    end
    local id = redis.call('XADD', KEYS[2], '*', unpack(fields))
    local place = '|' .. id .. '|' .. ARGV[at + 3]
    redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1] .. place)
    if other then redis.call('HSET', KEYS[4], ARGV[at], ARGV[at + 1] .. place) end
    mark = mark .. place
    news = news + 1
    reply[#reply + 1] = {'accepted', id, ARGV[at + 3]}
  end
end
if news > 0 then
  reply[1] = 'accepted'
  redis.call('EXPIRE', KEYS[3], ARGV[6])
  if other then redis.call('EXPIRE', KEYS[4], ARGV[7]) end
  if KEYS[5] then redis.call('SET', KEYS[5], mark, 'EX', ARGV[6]) end
end
return reply

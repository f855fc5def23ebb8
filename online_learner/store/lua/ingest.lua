#!lua
-- Accept what was said about one answer: join it, refuse a second copy, keep to the limits, append.
-- All or nothing.
-- KEYS  predictions, feedback (late: the stream of that name), said of the answer, said of the second
--       answer (only where there is one), seen (only with an idempotency key), then one for each
--       limit
-- ARGV  'mode n entry nonce [entry nonce] seconds [seconds] [rate burst ...]': mode is keyed, free
--       or dry, with -late behind it where the answers are on file alone by now, and what is said
--       of them goes there too, with their addresses in place of their records; n answers, each
--       with the seconds for which what is said of it is remembered; for each limit how many
--       signals a second, and how many at once;
--       the version expected or ''; digest of the whole; then for each signal:
--       'field-in-said digest nonce', signal
-- Returns the status, and how much of each limit's burst is used up, as words; then for each signal
-- {status, entry, its nonce}, and, where the key was used before, {'answer', entry, its nonce} of
-- what it was about then. The entry of a late signal has an L before it. The status is accepted
-- (late: archived_only), duplicate, reused, unknown, erased, limited, or mismatch (then with the
-- version). A dry run is accepted and writes nothing.
local head = {}
for word in string.gmatch(ARGV[1], '%S+') do head[#head + 1] = word end
local mode, n = head[1], tonumber(head[2])
local late = string.sub(mode, -5) == '-late'
if late then mode = string.sub(mode, 1, -6) end
local accepted = late and 'archived_only' or 'accepted'
local two = n == 2
local want = {'stream', 'stream', 'hash', two and 'hash' or 'string', 'string'}
local seen_key = mode == 'keyed' and KEYS[3 + n]
local named = seen_key and 3 + n or 2 + n  -- the keys behind these are those of the limits
for i = 1, named do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= want[i] and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
end

-- The generic cell rate algorithm, in its form as a leaky bucket (ITU-T I.371, annex A): a signal
-- adds one to what is spent, and `rate` a second leak out of it. Kept as 'spent moment', in µs.
local limits, spent, now = {}, '', 0
if head[3 + 3 * n] then
  local time = redis.call('TIME')
  now = time[1] * 1e6 + time[2]
end
for at = 3 + 3 * n, #head, 2 do
  local limit = {rate = tonumber(head[at]), burst = tonumber(head[at + 1]), spent = 0}
  limit.key = KEYS[named + #limits + 1]
  local before, moment = string.match(redis.call('GET', limit.key) or '', '^(%S+) (%d+)$')
  -- Where the clock was set back, or the limit lowered, nobody is shut out for what was before.
  if before and tonumber(moment) <= now then
    before = math.min(tonumber(before), limit.burst)
    limit.spent = math.max(0, before - (now - moment) * limit.rate / 1e6)
  end
  limits[#limits + 1] = limit
  spent = spent .. string.format('%.17g ', limit.spent)
end

local function charge(cost)
  for _, limit in ipairs(limits) do
    -- A millionth of a signal is no signal: sums of fractions are not exact.
    if limit.spent + cost > limit.burst + 1e-6 then return false end
  end
  spent = ''
  for _, limit in ipairs(limits) do
    local after = limit.spent + cost
    local empty_ms = string.format('%.0f', math.ceil(after / limit.rate * 1000))
    redis.call('SET', limit.key, string.format('%.17g %.0f', after, now), 'PX', empty_ms)
    spent = spent .. string.format('%.17g ', after)
  end
  return true
end

if seen_key then
  local seen = redis.call('GET', seen_key)
  if seen then
    local digest, about, its_nonce, rest = string.match(seen, '^(%x+)|([%d-]+)|(%x+)(.*)$')
    local reply = {digest == ARGV[3] and 'duplicate' or 'reused', spent}
    for entry, nonce in string.gmatch(rest, '|(L?[%d-]+)|(%x+)') do
      reply[#reply + 1] = {'duplicate', entry, nonce}
    end
    reply[#reply + 1] = {'answer', about, its_nonce}
    return reply
  end
end

local erased = false
local function fetch(entry, nonce)
  local found = redis.call('XRANGE', KEYS[1], entry, entry)[1]
  if not found then return end
  if found[2][2] == nonce then return found[2][4] end
  erased = erased or found[2][1] == 'x'
end

local record, other
if not late then
  record = fetch(head[3], head[4])
  other = two and fetch(head[5], head[6])
  if erased then return {'erased', spent} end
  if not record or (two and not other) then return {'unknown', spent} end
end
if ARGV[2] ~= '' and not late then
  local made = cjson.decode(record)
  local version = made.model_version or string.format('%d', made.version)
  if version ~= ARGV[2] then return {'mismatch', spent, version} end
end
if mode == 'dry' then return {accepted, spent} end

local function add(fields, name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end

local remember_s = head[two and 7 or 5]
local reply, news, mark = {'duplicate', ''}, 0, ARGV[3] .. '|' .. head[3] .. '|' .. head[4]
for at = 4, #ARGV, 2 do
  local field, signal, nonce = string.match(ARGV[at], '^(%x+) (%x+) (%x+)$')
  local before = redis.call('HGET', KEYS[3], field)
  local old_signal, old_entry, old_nonce
  if before then
    old_signal, old_entry, old_nonce = string.match(before, '^(%x+)|(L?[%d-]+)|(%x+)$')
  end
  if old_signal == signal and not seen_key then
    reply[#reply + 1] = {'duplicate', old_entry, old_nonce}
  else
    -- Up to the first signal that is new nothing is written: one of many is charged for all.
    if news == 0 and not charge((#ARGV - 3) / 2) then return {'limited', spent} end
    local fields = {'n', nonce, 'f', ARGV[at + 1], 'p', head[3], 'r', record}
    if late then
      fields[7], fields[8] = 'm', head[4]
      if two then
        add(fields, 'q', head[5])
        add(fields, 't', head[6])
      end
      if old_entry then old_entry = string.sub(old_entry, 2) end
    elseif other then
      add(fields, 'o', other)
    end
    if old_entry then add(fields, 's', old_entry) end
    local id = redis.call('XADD', KEYS[2], '*', unpack(fields))
    if late then id = 'L' .. id end
    local place = '|' .. id .. '|' .. nonce
    redis.call('HSET', KEYS[3], field, signal .. place)
    if two then redis.call('HSET', KEYS[4], field, signal .. place) end
    mark = mark .. place
    news = news + 1
    reply[#reply + 1] = {accepted, id, nonce}
  end
end
reply[2] = spent
if news > 0 then
  reply[1] = accepted
  redis.call('EXPIRE', KEYS[3], remember_s)
  if two then redis.call('EXPIRE', KEYS[4], head[8]) end
  if seen_key then redis.call('SET', seen_key, mark, 'EX', remember_s) end
end
return reply

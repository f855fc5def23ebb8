#!lua flags=allow-oom
-- Found a model: its first version and its first aliases, unless somebody was quicker.
-- KEYS  aliases, version:<n>
-- ARGV  version number, meta, sha, mac, blob, aliases, mac of the aliases, epoch
-- Returns 1 where this call founded it, else 0.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[2], 'meta', ARGV[2], 'sha', ARGV[3], 'mac', ARGV[4], 'blob', ARGV[5])
redis.call('HSET', KEYS[1], 'doc', ARGV[6], 'mac', ARGV[7], 'epoch', ARGV[8], 'versions', ARGV[1])
return 1

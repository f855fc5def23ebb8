#!lua flags=allow-oom
-- One small write that has to be possible when the store is full: without a fence, a heartbeat or
-- its configuration, nothing could learn what was accepted, and make room again.
-- KEYS  the key
-- ARGV  the command, and what follows the key
-- Returns what the command does.
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))

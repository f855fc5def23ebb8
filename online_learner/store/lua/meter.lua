#!lua
-- Add what was counted to the figures, and note how far the streams have been counted: unless
-- another process has counted since. So nothing is counted twice, whoever dies and whenever.
-- KEYS  metrics, meter
-- ARGV  the place from which was counted, or nothing; the place now; the tally, or nothing; who
--       counted; the oldest entry that has to stay
-- Returns 1, or 0 where another was faster: then nothing was written.
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
if ARGV[3] ~= '' then
  redis.call('XADD', KEYS[1], 'MINID', '~', ARGV[5], '*', 't', ARGV[3], 'by', ARGV[4])
end
redis.call('SET', KEYS[2], ARGV[2])
return 1

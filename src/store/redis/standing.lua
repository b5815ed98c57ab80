-- KEYS: the leases. ARGV: the tenant. Answers how many milliseconds are left, 0 once when it is over, or -1.
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ends then return -1 end
local left = tonumber(ends) - clock()
if left > 0 then return left end
redis.call('ZREM', KEYS[1], ARGV[1])
return 0

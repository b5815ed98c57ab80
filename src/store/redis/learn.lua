-- KEYS: the learned secrets. ARGV: the endpoint, its secret. Answers whether it is kept; another one stays.
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then return 1 end
return redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] and 1 or 0

-- KEYS: the learned secrets. ARGV: the caller's clock in milliseconds, 1 if claims may be gone for a reason that is not
-- seen here. Answers the server's clock, and how many secrets there are.
if ARGV[2] == '1' then begin(tonumber(ARGV[1])) else since(tonumber(ARGV[1])) end
return { clock(), redis.call('HLEN', KEYS[1]) }

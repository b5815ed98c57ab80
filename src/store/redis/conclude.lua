-- KEYS: the claim. ARGV: the holder; `s` it is settled, `u` nobody knows, `r` it is released, `w` it is withdrawn,
-- which even a settled one can be. Answers whether the holder waited.
local kept = redis.call('GET', KEYS[1])
local holder, conclusion = unpack(ARGV)
if not kept or kept:sub(2, 17) ~= holder or holder == '0000000000000000' then return 0 end
if kept:sub(1, 1) == 's' and conclusion ~= 'w' then return 0 end
if conclusion == 'r' or conclusion == 'w' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], conclusion .. kept:sub(2), 'KEEPTTL')
end
return 1

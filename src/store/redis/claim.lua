-- KEYS: the claim. ARGV: the holder, milliseconds to remember, milliseconds that an outcome is awaited (0: it is not),
-- the caller's clock in milliseconds, when the delivery was signed at the earliest (or nothing), 1 if one that may have
-- been forgotten is refused.
local FIRST, AGAIN, PENDING, UNKNOWN, SETTLED, FORGOTTEN = 0, 1, 2, 3, 4, 5
local holder, remember, patience, wall, signed, strict = unpack(ARGV)
local NOBODY = '0000000000000000'
local now = clock()

local function keep()
  local state = patience == '0' and 's' or 'p'
  redis.call('SET', KEYS[1], state .. holder .. string.format('%.0f', now), 'PX', remember)
end

-- First of all, or the claim that makes it begin would be taken for one that was there before it.
local complete = since(tonumber(wall))
local kept = redis.call('GET', KEYS[1])
if kept then
  local state, by, at = kept:sub(1, 1), kept:sub(2, 17), tonumber(kept:sub(18))
  if by == holder and holder ~= NOBODY then return AGAIN end
  if state == 's' then return SETTLED end
  if state == 'p' and math.abs(now - at) < tonumber(patience) then return PENDING end
  keep()
  return UNKNOWN
end
if signed ~= '' and tonumber(signed) <= complete then
  if strict == '1' then return FORGOTTEN end
  keep()
  return UNKNOWN
end
keep()
return FIRST

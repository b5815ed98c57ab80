-- Since when this server is known to have forgotten nothing, in milliseconds of the caller's clock: the one that also
-- judges how old a delivery is. KEYS[#KEYS] says so, and by which run of a server; if it is gone, or another server or
-- another run of it answers, then claims may be gone too, and it begins now.
local run = redis.call('INFO', 'server'):match('run_id:(%x+)')

local function begin(wall)
  redis.call('SET', KEYS[#KEYS], run .. ':' .. string.format('%.0f', wall))
  return wall
end

local function since(wall)
  local known = redis.call('GET', KEYS[#KEYS])
  local moment = known and known:sub(1, #run) == run and tonumber(known:sub(#run + 2))
  -- What begins well after now was written by a clock that ran ahead.
  if not moment or moment > wall + 60000 then return begin(wall) end
  return moment
end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

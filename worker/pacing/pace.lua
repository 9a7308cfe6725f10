-- The pace of one scope (a provider's account and model), decided for all workers at once.
--
-- KEYS[1]  <prefix>pace:<provider>:<account>:<model>, a HASH that expires a day after its last use:
--   at                      when it was last brought up to date; all times are ms of the server's clock
--   level_r _t _i _o        permits in the buckets: requests, tokens, input tokens, output tokens; below 0 is debt
--   largest_t _i _o         the largest call of late
--   told_r _t _i _o _d      limits as the provider's headers tell them; they replace the workers' own
--   day_used, day_until     requests of the day, and when a new day begins
--   ok, bad                 outcomes of the last few tens of calls, for the breaker
--   answered, limited       outcomes of the last second or so, for pauses
--   paused_until, paused_ms, streak, why    the last pause, how often it came in a row, and its reason
--   trim                    share of the rate in use: less after a pause, back to 1 with time
--   breaker                 closed, open or half; absent is closed
--   open_until, trips, probes, half_at      when probes may go, openings in a row, probes out, since when
--   m:<member>              when this worker last wanted permits
-- ARGV[1]  JSON, see `shared.Report`. Returns JSON, see `shared.Answer`.

local key, ask = KEYS[1], cjson.decode(ARGV[1])
local now = ask.now_ms
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end

local s, members = {}, {}
local flat = redis.call('HGETALL', key)
for n = 1, #flat, 2 do
  local name, value = flat[n], flat[n + 1]
  if name:sub(1, 2) == 'm:' then members[name] = tonumber(value) else s[name] = tonumber(value) or value end
end
if not s.at then -- new, or Redis lost it: what this worker remembers is the best there is
  s.at, s.trim, s.breaker, s.trips, s.streak = now, 1, 'closed', 0, 0
  s.ok, s.bad, s.answered, s.limited, s.day_used, s.day_until = 0, 0, 0, 0, ask.day_used, now + 86400000
  s.paused_until, s.paused_ms, s.why = now + ask.paused_ms, ask.paused_ms, 'asked to wait'
  if ask.open_ms > 0 then s.breaker, s.open_until = 'open', now + ask.open_ms end
end
local elapsed = math.max(0, now - s.at)
s.at = now

-- Limits: the provider's word before the registry's.
local limit, remaining, learned = {}, {}, {}
for k, told in pairs(ask.told) do
  if told.limit then
    learned[k] = not s['told_' .. k] and not ask.limits[k]
    s['told_' .. k] = told.limit
  end
  remaining[k] = told.remaining
end
for _, k in ipairs({'r', 't', 'i', 'o', 'd'}) do limit[k] = s['told_' .. k] or ask.limits[k] end

-- Pauses.
local fade = math.exp(-elapsed / 1000)
s.answered, s.limited = s.answered * fade + ask.ok + ask.bad, s.limited * fade + ask.limited
s.trim = math.min(1, s.trim + elapsed * 0.1 / 30000)
local spent = false
for _, left in pairs(remaining) do spent = spent or left <= 0 end
if ask.limited > 0 or ask.pause_ms > 0 then
  if now < s.paused_until then
    s.paused_until = math.max(s.paused_until, now + ask.pause_ms)
  elseif s.paused_ms > 0 and now - s.paused_until < 30000 and ask.pause_ms <= ask.short_wait_ms and not spent
      and s.limited < 0.25 * (s.limited + s.answered) then
    -- A few among many answers, shortly after a pause: pausing does not help against these.
    if next(remaining) == nil then s.trim = math.max(0.7, s.trim * 0.99) end
  else
    s.streak = (s.paused_ms > 0 and now - s.paused_until < 10000) and math.min(s.streak + 1, 6) or 0
    s.paused_ms = ask.pause_ms > 0 and ask.pause_ms or math.min(60000, 1000 * 2 ^ s.streak)
    s.paused_until = now + s.paused_ms
    s.why = ask.limited > 0 and 'rate limited' or 'asked to wait'
    s.trim = math.max(0.5, s.trim * 0.9)
  end
end
local paused = now < s.paused_until
local ramp = paused and 0 or 1
if not paused and s.paused_ms > 0 then ramp = math.min(1, 0.25 + 0.75 * (now - s.paused_until) / ask.ramp_ms) end

-- Breaker. Each kind of outcome makes the other fade, so that a fast worker notices soon; time does, too.
fade = math.exp(-elapsed / 10000)
s.ok = math.min(50, s.ok * fade * math.exp(-ask.bad / 20) + ask.ok)
s.bad = s.bad * fade * math.exp(-ask.ok / 20) + ask.bad
if s.breaker == 'closed' and s.bad >= ask.breaker_failures and s.bad >= s.ok
    or s.breaker == 'half' and ask.bad > 0 then
  s.breaker, s.open_until = 'open', now + math.min(60000, ask.cool_down_ms * 2 ^ s.trips)
  s.trips, s.ok, s.bad = math.min(s.trips + 1, 6), 0, 0
elseif s.breaker == 'half' and ask.ok > 0 then
  s.breaker, s.trips, s.ok, s.bad = 'closed', 0, 0, 0
elseif s.breaker == 'open' and now >= s.open_until and ask.must then
  s.breaker, s.probes, s.half_at = 'half', 0, now
elseif s.breaker == 'half' and now - s.half_at > 30000 then -- whoever had the probes is gone
  s.probes, s.half_at = 0, now
end

-- Buckets. In any minute: what is refilled, what was in the bucket, what workers hold, and one call's debt.
local level, burst, rate = {}, {}, {}
for _, k in ipairs({'r', 't', 'i', 'o'}) do
  if limit[k] then
    local largest = math.max((s['largest_' .. k] or 0) * math.exp(-elapsed / 60000), ask.largest[k] or 0)
    if k ~= 'r' then s['largest_' .. k] = largest end
    burst[k] = math.max(0.01 * limit[k], k == 'r' and 1 or 0)
    local a_minute = math.max(0.98 * limit[k] - math.max(0, largest - 0.01 * limit[k]), 0.5 * limit[k])
    rate[k] = a_minute * s.trim / ask.minute_ms
    local was = s['level_' .. k]
    if not was then -- what was called before the limit was known
      was = learned[k] and -math.min(limit[k] - (remaining[k] or limit[k]), 0.02 * limit[k]) or 0
    end
    local since = math.min(elapsed, math.max(0, now - s.paused_until))
    level[k] = was + rate[k] * ramp * since + (ask.back[k] or 0)
    level[k] = math.max(math.min(level[k], burst[k], remaining[k] or burst[k]), -limit[k])
  end
end
if limit.d then
  if now >= s.day_until then s.day_used, s.day_until = 0, now + 86400000 end
  s.day_used = math.max(0, s.day_used - (ask.back.d or 0))
  if remaining.d then
    -- Calls on their way are not in the provider's count yet; far apart, it is ours that is wrong.
    local used = limit.d - remaining.d
    if used > s.day_used or s.day_used - used > 0.02 * limit.d then s.day_used = used end
    if remaining.d <= 0 and ask.told.d.reset_ms then s.day_until = now + math.max(1000, ask.told.d.reset_ms) end
  end
  level.d, burst.d = limit.d - s.day_used, 1
end

-- Permits: for the next call, whole or not at all, then a share of what else is wanted.
if ask.must then members['m:' .. ask.member] = now end
local active = 0
for name, seen in pairs(members) do
  if now - seen < 2000 then active = active + 1 else
    redis.call('HDEL', key, name)
    members[name] = nil
  end
end
local given = {}
local may = ask.must and not paused and (s.breaker == 'closed' or s.breaker == 'half' and s.probes < 3)
for k, have in pairs(level) do may = may and have >= math.min(ask.must[k], burst[k]) end
if may then
  for k in pairs(level) do
    given[k] = ask.must[k]
    level[k] = level[k] - given[k]
  end
  local part = 1
  for k, have in pairs(level) do
    local wanted = ask.like[k] or 0
    if wanted > 0 then
      local share = rate[k] and math.min(have, rate[k] * ask.ahead_ms / active) or have / active
      part = math.max(0, math.min(part, share / wanted))
    end
  end
  if s.breaker == 'half' then
    s.probes, part = s.probes + 1, 0
  end
  for k in pairs(level) do
    local more = part * (ask.like[k] or 0)
    given[k], level[k] = given[k] + more, level[k] - more
  end
end
if limit.d then s.day_used = limit.d - level.d end
local day_ms = limit.d and level.d < 1 and s.day_until - now or 0

local fields = {}
for k, have in pairs(level) do if k ~= 'd' then s['level_' .. k] = have end end
for name, value in pairs(s) do
  fields[#fields + 1] = name
  fields[#fields + 1] = type(value) == 'number' and string.format('%.17g', value) or value
end
for name, seen in pairs(members) do
  fields[#fields + 1] = name
  fields[#fields + 1] = string.format('%.17g', seen)
end
redis.call('HSET', key, unpack(fields))
redis.call('PEXPIRE', key, 90000000)

local told = false
for k in pairs(limit) do told = told or s['told_' .. k] ~= nil end
local per_s = {}
for k, each in pairs(rate) do per_s[k] = each * 1000 end
return cjson.encode({
  may = may or false, given = given, limits = limit, per_s = per_s, told = told, members = active,
  paused_ms = math.max(0, s.paused_until - now),
  breaker = s.breaker, open_ms = s.breaker == 'open' and math.max(0, s.open_until - now) or 0,
  day_ms = day_ms, day_used = s.day_used,
})

-- Replaces the hashes of SKUs by newer ones; returns how many were newer.
--
-- ARGV[1]: msgpack of one flat array, for each SKU its key, the number n of texts that follow, then these n texts:
-- "@incarnation", i, "@version", v, "@as_of", ms, channel, promised, channel, promised, ...
-- A negative n: readers may have seen newer than this, so a hash that is missing stays so.
-- Numbers are texts: doubles would round versions beyond 2^53, and texts cost Redis less to write.
--
-- The keys are not in KEYS: in a Redis Cluster they lie on many nodes, so one call could not hold them. A sink for a
-- Cluster would make its calls per node and slot and name the keys of each.
local texts = cmsgpack.unpack(ARGV[1])
local call, unpack, min, abs = redis.call, unpack, math.min, math.abs
local FIELDS_AT_ONCE = 4000 -- texts; Lua cannot pass more than about 8000 arguments

-- Decimal texts without leading zeros: the longer one is greater, then the first greater digit decides.
local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function write(key, first, last)
  for start = first, last, FIELDS_AT_ONCE do
    call('HSET', key, unpack(texts, start, min(start + FIELDS_AT_ONCE - 1, last)))
  end
end

local written, at, count = 0, 1, #texts
while at < count do
  local key, width = texts[at], abs(texts[at + 1])
  local first, last = at + 2, at + 1 + width
  local known = call('HMGET', key, '@incarnation', '@version')
  local incarnation, version = known[1], known[2]
  local is_known = incarnation and version
  local is_newer = texts[at + 1] > 0
  if is_known then
    local same_incarnation = texts[first + 1] == incarnation
    is_newer = not same_incarnation and less(incarnation, texts[first + 1])
      or same_incarnation and less(version, texts[first + 3])
  end
  if is_newer then
    write(key, first, last)
    -- Fields of removed channels: rare, and looking at the length costs less than deleting first.
    if incarnation ~= false and call('HLEN', key) * 2 ~= width then
      call('DEL', key)
      write(key, first, last)
    end
    written = written + 1
  end
  at = last + 1
end
return written

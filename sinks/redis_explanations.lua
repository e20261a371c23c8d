-- Replaces the explanations of SKUs by newer ones; returns how many were taken.
--
-- ARGV[1]: msgpack of one flat array of texts, for each SKU its key, incarnation, version and document. One of the same
-- version is taken: a fact may have been applied, or a rule changed, that leaves the numbers as they were.
local texts = cmsgpack.unpack(ARGV[1])

-- Decimal texts without leading zeros: the longer one is greater, then the first greater digit decides.
local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local taken = 0
for at = 1, #texts, 4 do
  local key, incarnation, version, document = texts[at], texts[at + 1], texts[at + 2], texts[at + 3]
  local known = redis.call('HMGET', key, '@incarnation', '@version')
  local is_older = known[1] and known[2]
    and (less(incarnation, known[1]) or incarnation == known[1] and less(version, known[2]))
  if not is_older then
    redis.call('HSET', key, '@incarnation', incarnation, '@version', version, 'doc', document)
    taken = taken + 1
  end
end
return taken

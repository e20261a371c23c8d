-- Notes which rules the partitions go by; returns 1, or 0 for an old incarnation.
--
-- ARGV[1]: msgpack of an array of texts: key, incarnation, then for each partition its number, offset, generation, a
-- JSON text that says so, and the document of its rules. The document of the greatest generation stands in the hash.
local texts = cmsgpack.unpack(ARGV[1])
local key, incarnation = texts[1], texts[2]

-- Decimal texts without leading zeros; one that begins with a minus is less than all others.
local function less(a, b)
  if string.sub(a, 1, 1) == '-' or string.sub(b, 1, 1) == '-' then return a ~= b and string.sub(a, 1, 1) == '-' end
  if #a ~= #b then return #a < #b end
  return a < b
end

local known = redis.call('HGET', key, '@incarnation')
if known ~= incarnation then
  if known and less(incarnation, known) then return 0 end
  redis.call('DEL', key)
  redis.call('HSET', key, '@incarnation', incarnation)
end
for at = 3, #texts, 5 do
  local partition, offset, generation = texts[at], texts[at + 1], texts[at + 2]
  local before = redis.call('HGET', key, '@offset:' .. partition)
  if not before or not less(offset, before) then
    redis.call('HSET', key, '@offset:' .. partition, offset, partition, texts[at + 3])
    local greatest = redis.call('HGET', key, 'generation')
    if not greatest or not less(generation, greatest) then
      redis.call('HSET', key, 'generation', generation, 'document', texts[at + 4])
    end
  end
end
return 1

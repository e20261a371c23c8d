-- Notes which rules the partitions go by; returns 1, or 0 for an old incarnation.
--
-- ARGV[1]: msgpack of an array of texts: key, incarnation, the greatest generation of this call and its document, then
-- for each partition its number, offset, and a JSON text that says what it goes by. Documents may be large, so that of
-- the greatest generation alone stands in the hash, and in the call.
local texts = cmsgpack.unpack(ARGV[1])
local key, incarnation, generation, document = texts[1], texts[2], texts[3], texts[4]

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
for at = 5, #texts, 3 do
  local partition, offset = texts[at], texts[at + 1]
  local before = redis.call('HGET', key, '@offset:' .. partition)
  if not before or not less(offset, before) then
    redis.call('HSET', key, '@offset:' .. partition, offset, partition, texts[at + 2])
  end
end
local greatest = redis.call('HGET', key, 'generation')
if not greatest or not less(generation, greatest) then
  redis.call('HSET', key, 'generation', generation, 'document', document)
end
return 1

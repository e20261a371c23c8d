-- Merges what some slots know about the age of the numbers into the health hash; returns 1, or 0 for an old incarnation.
--
-- ARGV[1]: msgpack of an array of texts: key, incarnation ("0": not known), how many slots there are, then slot,
-- "<watermark_ms> <lag> <written_ms>", ...
-- Slots live in several processes, so each keeps its part in a field of its own, and the oldest part is the truth. As
-- long as one of them has said nothing, nobody knows how old the numbers are.
local texts = cmsgpack.unpack(ARGV[1])
local key, incarnation, slots = texts[1], texts[2], tonumber(texts[3])

local known = redis.call('HGET', key, 'incarnation') or '0'
if incarnation ~= '0' and incarnation ~= known then
  if #incarnation < #known or (#incarnation == #known and incarnation < known) then return 0 end
  redis.call('DEL', key) -- parts of an older state say nothing about this one
  redis.call('HSET', key, 'incarnation', incarnation)
end
if #texts == 3 then return 1 end
for i = 4, #texts, 2 do redis.call('HSET', key, texts[i], texts[i + 1]) end

local watermark, lag, written
local told = 0
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 5) == 'slot-' then
    told = told + 1
    local its_watermark, its_lag, its_written = string.match(fields[i + 1], '^(%d+) (%S+) (%d+)$')
    if not watermark or tonumber(its_watermark) < tonumber(watermark) then watermark = its_watermark end
    if not lag or (tonumber(its_lag) or math.huge) > (tonumber(lag) or math.huge) then lag = its_lag end
    if not written or tonumber(its_written) < tonumber(written) then written = its_written end
  end
end
if watermark then
  if told < slots then watermark, lag = '0', 'inf' end
  redis.call('HSET', key, 'watermark_ms', watermark, 'lag_seconds', lag, 'written_ms', written)
end
return 1

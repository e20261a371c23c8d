-- Whether this server still holds what a slot has written to it: 1: it does, 2: it is being filled, 0: something is lost.
--
-- ARGV[1]: msgpack of an array of texts: key, slot, incarnation, held ("" or the mark of the refill under way), mark (of
-- the next refill), step ("look", "filled"). The slot's field holds "<incarnation> <identity>" once everything is
-- written, and "<mark> <identity>" while it is being filled, so that a second loss shows, too. A loss is marked at once.
--
-- The identity is that of the process and of its data: it changes with a restart, with a failover, and with a time as
-- a replica. A call that comes a second time, because its answer was lost, gives the same answer.
local texts = cmsgpack.unpack(ARGV[1])
local key, slot, incarnation, held, mark, step = unpack(texts)

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local history = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local identity = ' ' .. run .. ':' .. history

local found = redis.call('HGET', key, slot)
if found == incarnation .. identity then return 1 end
if found == held .. identity then
  if step ~= 'filled' then return 2 end
  redis.call('HSET', key, slot, incarnation .. identity)
  return 1
end
if found ~= mark .. identity then redis.call('HSET', key, slot, mark .. identity) end
return 0

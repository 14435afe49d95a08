-- Grants requests from the buckets KEYS, and takes back what was not used. A bucket is "AT:BACKLOG": how many microseconds
-- of backlog it had when it was last touched, by this server's clock, the only one that counts. It expires when it would
-- be empty, and one that is not there is empty.
--
-- ARGV has eight numbers for each bucket: what a request adds, how much backlog there may be, for how long a block may be
-- out (all in microseconds); how many requests are asked for, how many of them wait and are granted if there are so many;
-- how many were passed without asking while this server was away; how many come back, and when they were granted.
--
-- Returns for each bucket: how many are granted, how many are left, microseconds until one is, and now.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local replies = {}
for number, key in ipairs(KEYS) do
    local first = (number - 1) * 8
    local interval, capacity, longest = tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2]), tonumber(ARGV[first + 3])
    local asked, waiting, passed = tonumber(ARGV[first + 4]), tonumber(ARGV[first + 5]), tonumber(ARGV[first + 6])
    local returned, granted_at = tonumber(ARGV[first + 7]), tonumber(ARGV[first + 8])
    local backlog, stored = 0, redis.call('GET', key)
    if stored then
        local colon = string.find(stored, ':', 1, true)
        -- A clock that was set back stands still for the bucket: nothing drains, and nothing is added.
        local elapsed = math.max(0, now - tonumber(string.sub(stored, 1, colon - 1)))
        backlog = math.max(0, tonumber(string.sub(stored, colon + 1)) - elapsed)
    end
    -- What came back to the quota meanwhile is kept: the bucket may have been full. Too late, and all is.
    local held = now - granted_at
    if returned > 0 and held >= 0 and held <= longest then
        backlog = math.max(0, backlog - math.max(0, returned * interval - held))
    end
    -- What is passed ahead is counted beyond the quota too; what passed during a long outage has drained since.
    backlog = math.max(backlog, math.min(capacity * 1.005, backlog + passed * interval))
    local free = math.max(0, math.floor((capacity - backlog) / interval + 0.000001))
    -- A block leaves most of what is left to others, who would be refused while it is out.
    local granted = math.min(asked, free, math.max(waiting, math.floor(free / 4), 1))
    backlog = backlog + granted * interval
    if backlog > 0 then
        local value = string.format('%.0f:%.3f', now, backlog)
        redis.call('SET', key, value, 'PX', string.format('%.0f', math.ceil(backlog / 1000) + 1))
    elseif stored then
        redis.call('DEL', key)
    end
    local wait = math.max(0, math.ceil(backlog + interval - capacity))
    replies[number] = { granted, free - granted, wait, now }
end
return replies

-- Grants requests from the buckets KEYS, and takes back what was not used. A bucket is "AT:BACKLOG:EARLIER:LOWEST:LATER:LOWEST":
-- how many microseconds of backlog it had when it was last touched, by this server's clock, the only one that counts; and
-- the lowest it has been at since two moments. It expires when it would be empty, and one that is not there is empty.
--
-- ARGV has eight numbers for each bucket: what a request adds, how much backlog there may be, for how long a block may be
-- out (all in microseconds); how many requests are asked for, how many of them wait and are granted if there are so many;
-- how many were passed before this server was told; how many come back, and when they were granted.
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
    local backlog, earlier, earlier_lowest, later, later_lowest = 0, now, 0, now, 0
    local stored = redis.call('GET', key)
    if stored then
        local numbers = {}
        for text in string.gmatch(stored, '[^:]+') do
            numbers[#numbers + 1] = tonumber(text)
        end
        -- Where the clock was set back, nothing drains and nothing is added.
        backlog = math.max(0, numbers[2] - math.max(0, now - numbers[1]))
        earlier, later = numbers[3], numbers[5]
        earlier_lowest, later_lowest = math.min(numbers[4], backlog), math.min(numbers[6], backlog)
    end
    -- What came back to the quota meanwhile is kept, where the bucket may have been full but for the block; of blocks that
    -- come too late, all of that.
    local held = now - granted_at
    if returned > 0 and held >= 0 then
        local lowest = granted_at >= later and later_lowest or granted_at >= earlier and earlier_lowest or 0
        local back = math.min(returned * interval, lowest)
        if held <= longest then
            back = math.min(backlog, math.max(back, returned * interval - held))
        end
        backlog = backlog - back
        earlier_lowest, later_lowest = math.max(0, earlier_lowest - back), math.max(0, later_lowest - back)
    end
    -- What is passed ahead is counted beyond the quota too; what passed during a long outage has drained since.
    backlog = math.max(backlog, math.min(capacity * 1.005, backlog + passed * interval))
    local free = math.max(0, math.floor((capacity - backlog) / interval + 0.000001))
    -- A block leaves most of what is left to others, who would be refused while it is out.
    local granted = math.min(asked, free, math.max(waiting, math.floor(free / 4), 1))
    backlog = backlog + granted * interval
    -- For blocks granted from now on, another moment is better: when the last one is long ago, or the bucket was emptier.
    if now - later >= math.max(longest, 100000) then
        earlier, earlier_lowest, later, later_lowest = later, later_lowest, now, backlog
    elseif now > later and later_lowest * 2 < backlog then
        later, later_lowest = now, backlog
    end
    if backlog > 0 then
        local value = string.format('%.0f:%.3f:%.0f:%.3f:%.0f:%.3f', now, backlog, earlier, earlier_lowest, later, later_lowest)
        redis.call('SET', key, value, 'PX', string.format('%.0f', math.ceil(backlog / 1000) + 1))
    elseif stored then
        redis.call('DEL', key)
    end
    local wait = math.max(0, math.ceil(backlog + interval - capacity))
    replies[number] = { granted, free - granted, wait, now }
end
return replies

-- One wave: every connection of this wrk asks once, all at the same time, and wrk ends when all have been answered.
-- For loadtest.sh; one thread (-t1). Environment:
--
--   CLIENTS   connections, as of -c
--   IDS       how many ids are asked for, from FIRST on: 1 is the hot one alone
--   FIRST     the first of them
--   ANSWERS   a file: a line "id query outcome status" is added for each answer
--   TIMES     a file: a line "microseconds count" is added for each latency that wrk has seen
--
-- wrk calls delay() before each request of a connection. No answer can be there before all connections have called it
-- once: they are all connected, and have called it, before wrk looks at its first timer. So the first calls, as many
-- as there are connections, are one of each, and any later one is of a connection that has been answered.

local ffi = require("ffi")
ffi.cdef("int getpid(void); int kill(int pid, int signal);")

local START_MS, NEVER_MS, SIGINT = 20, 3600000, 2
local clients = tonumber(os.getenv("CLIENTS"))
local ids, first = tonumber(os.getenv("IDS")), tonumber(os.getenv("FIRST"))
local delays, asked, answers = 0, 0, {}

function delay()
    delays = delays + 1
    return delays <= clients and START_MS or NEVER_MS
end

function request()
    local id = first + asked % ids
    asked = asked + 1
    return wrk.format("GET", "/template-details?id=" .. id)
end

-- RFC 9211: what the cache did, in its last words.
local function outcome_of(status)
    if status == nil then return "none" end
    if status:find("; hit", 1, true) then return status:find("stale", 1, true) and "stale" or "hit" end
    return status:find("collapsed", 1, true) and "shared" or "asked"
end

function response(status, headers, body)
    answers[#answers + 1] = string.format("%s %s %s %d", body:match('"id":(%d+)') or "-",
        body:match('"query":(%d+)') or "-", outcome_of(headers["Cache-Status"]), status)
    if #answers < clients then return end
    local file = assert(io.open(os.getenv("ANSWERS"), "a"))
    assert(file:write(table.concat(answers, "\n"), "\n"))
    assert(file:close())
    wrk.thread:stop()
    ffi.C.kill(ffi.C.getpid(), SIGINT) -- wrk would sleep until its time is over
end

-- In a state of its own, when all is over.
function done(summary, latency)
    local file = assert(io.open(os.getenv("TIMES"), "a"))
    for i = 1, #latency do
        local microseconds, count = latency(i)
        assert(file:write(string.format("%d %d\n", microseconds, count)))
    end
    assert(file:close())
    local e = summary.errors
    if e.connect + e.read + e.write + e.status + e.timeout > 0 then
        io.stderr:write(string.format("errors: %d connect, %d read, %d write, %d status, %d timeout\n",
            e.connect, e.read, e.write, e.status, e.timeout))
        os.exit(1)
    end
end

-- The load of scripts/bench: PUT or GET of a random key among so many.
--   wrk ... -s wrk.lua URL -- METHOD KEYS VALUE_BYTES [QUERY]
-- The last line printed is the result as JSON, for the caller. Latencies are in microseconds.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init(args)
  method = args[1]
  keys = tonumber(args[2])
  query = (args[4] or "") ~= "" and "?" .. args[4] or ""
  math.randomseed(number * 7919)
  if method == "PUT" then
    body = string.rep("x", tonumber(args[3]))
    -- Without it wrk sends none; a store keeps a content type, so one is named that says nothing.
    wrk.headers["Content-Type"] = "application/octet-stream"
  end
end

function request()
  return wrk.format(method, string.format("/v1/kv/key%05d%s", math.random(0, keys - 1), query), nil, body)
end

-- NB: wrk counts as a status error what is above 399; nothing here is redirected.
function done(summary, latency, requests)
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, ' ..
    '"refused": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    summary.errors.status, summary.errors.connect, summary.errors.read, summary.errors.write, summary.errors.timeout))
end

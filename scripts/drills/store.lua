-- The load of scripts/bench --against: one kind of request to raftkv, or to etcd's JSON gateway.
--   STORE_ADDRESSES=HOST:PORT,... wrk ... -s store.lua URL -- STORE OPERATION KEYS VALUE_BYTES
-- Thread i talks to address i. The last line printed is the result as JSON; latencies are in microseconds.

local BATCH = 100
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local threads = 0
local addresses = {}

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
  if #addresses == 0 then
    for host, port in string.gmatch(os.getenv("STORE_ADDRESSES") or "", "([^:,]+):(%d+)") do
      table.insert(addresses, wrk.lookup(host, port)[1])
    end
  end
  if #addresses > 0 then
    thread.addr = addresses[(threads - 1) % #addresses + 1]
  end
end

local function base64(text)
  local parts = {}
  for i = 1, #text, 3 do
    local a, b, c = string.byte(text, i, i + 2)
    local n = a * 65536 + (b or 0) * 256 + (c or 0)
    for shift = 18, 0, -6 do
      local at = math.floor(n / 2 ^ shift) % 64 + 1
      table.insert(parts, string.sub(ALPHABET, at, at))
    end
    if not b then parts[#parts - 1] = "=" end
    if not c then parts[#parts] = "=" end
  end
  return table.concat(parts)
end

local function key(number) return string.format("key%05d", number) end

local raftkv = {}

function raftkv.put(number) return wrk.format("PUT", "/v1/kv/" .. key(number), octets, value) end
function raftkv.get(number) return wrk.format("GET", "/v1/kv/" .. key(number)) end
function raftkv.lease(number) return wrk.format("GET", "/v1/kv/" .. key(number) .. "?consistency=lease") end
function raftkv.stale(number) return wrk.format("GET", "/v1/kv/" .. key(number) .. "?consistency=stale") end

function raftkv.batch()
  local ops = {}
  for i = 1, BATCH do
    ops[i] = string.format('{"put":{"key":"%s","value":"%s"}}', key(math.random(0, keys - 1)), value)
  end
  return wrk.format("POST", "/v1/batch", json, '{"ops":[' .. table.concat(ops, ",") .. "]}")
end

local etcd = {}

local function etcd_key(number)
  encoded[number] = encoded[number] or base64(key(number))
  return encoded[number]
end

function etcd.put(number)
  return wrk.format("POST", "/v3/kv/put", json, string.format('{"key":"%s","value":"%s"}', etcd_key(number), value64))
end

function etcd.get(number)
  return wrk.format("POST", "/v3/kv/range", json, string.format('{"key":"%s"}', etcd_key(number)))
end

function etcd.stale(number)
  return wrk.format("POST", "/v3/kv/range", json, string.format('{"key":"%s","serializable":true}', etcd_key(number)))
end

-- A transaction writes a key only once.
function etcd.batch()
  local ops, first = {}, math.random(0, keys - 1)
  for i = 1, BATCH do
    local name = etcd_key((first + i) % keys)
    ops[i] = string.format('{"request_put":{"key":"%s","value":"%s"}}', name, value64)
  end
  return wrk.format("POST", "/v3/kv/txn", json, '{"success":[' .. table.concat(ops, ",") .. "]}")
end

function init(args)
  local store = ({raftkv = raftkv, etcd = etcd})[args[1]]
  local operation = args[2]
  keys = tonumber(args[3])
  value = string.rep("x", tonumber(args[4]))
  value64 = base64(value)
  encoded = {}
  json = {["Content-Type"] = "application/json"}
  octets = {["Content-Type"] = "application/octet-stream"}
  math.randomseed(number * 7919)
  if operation == "mixed" then
    make = function(n) return (math.random(10) == 1 and store.put or store.get)(n) end
  else
    make = store[operation]
  end
end

function request() return make(math.random(0, keys - 1)) end

-- NB: wrk counts as a status error what is above 399; nothing here is redirected.
function done(summary, latency, requests)
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, ' ..
    '"refused": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    summary.errors.status, summary.errors.connect, summary.errors.read, summary.errors.write, summary.errors.timeout))
end

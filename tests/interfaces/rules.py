"""The tables and rules that count for all calls: reads, headers, retries, errors, limits, and commands; see
``rows``.
"""

from __future__ import annotations

from tests.interfaces.rows import PUT, Row

READS = tuple(
    Row(
        f"?{query}",
        (
            (
                f"'$url/v1/kv/$key?{query}'",
                f"(status, body, headers['raftkv-consistency']) == (200, 'v', '{level}')"
                f" and ('raftkv-staleness-ms' in headers) == {level == 'stale'}",
            ),
            (f"'$url/v1/kv?prefix=$key&{query}'", "len(json['items']) == 1"),
        ),
        (
            f"(read := client.read(key, {keywords})).consistency == '{level}' and read.item.text == 'v'",
            f"(read.staleness_s is not None) == {level == 'stale'}",
            f"len(client.page(prefix=key, {keywords}).items) == 1",
        ),
        (
            (f"get $key {options}", "(code, out) == (0, 'v')"),
            (f"list $key {options}", "len(out.split()) == 2"),
        ),
        # What is stale may not have it yet on the node that is asked.
        before=(f"revision := {PUT}.revision", "everywhere(revision)"),
    )
    for query, level, keywords, options in (
        (
            "consistency=linearizable",
            "linearizable",
            "consistency='linearizable'",
            "--consistency linearizable",
        ),
        ("consistency=lease", "lease", "consistency='lease'", "--consistency lease"),
        (
            "consistency=stale&max_staleness=5s",
            "stale",
            "consistency='stale', max_staleness=5",
            "--consistency stale --max-staleness 5s",
        ),
        ("consistency=stale", "stale", "consistency='stale'", "--consistency stale"),
        (
            "consistency=stale&min_revision=$revision",
            "stale",
            "consistency='stale', min_revision=revision",
            "--consistency stale --min-revision $revision",
        ),
        ("min_revision=$revision", "linearizable", "min_revision=revision", "--min-revision $revision"),
    )
)

RULES = (
    Row(
        "Reply headers: Raftkv-Revision, Raftkv-Node, Raftkv-Leader, Raftkv-Consistency; nosniff",
        (
            (
                "$url/v1/kv/$key",
                "{'raftkv-node', 'raftkv-leader', 'raftkv-revision', 'raftkv-consistency'} <= headers.keys()"
                " and headers['x-content-type-options'] == 'nosniff'",
            ),
        ),
        (
            "(read := client.read(key)).node in ('n1', 'n2', 'n3') and read.leader in ('n1', 'n2', 'n3')",
            "read.revision >= read.item.mod_revision",
        ),
        None,  # it shows what is there, not who said it
        before=(PUT,),
    ),
    Row(
        "Followers forward. ?redirect=true asks for a 307 to the leader's advertised URL instead",
        (
            ("-X PUT -d v $follower/v1/kv/$key", "status == 201"),
            (
                "$follower/v1/kv/$key?redirect=true",
                "(status, headers['location']) == (307, '%s/v1/kv/%s' % (leader, key))",
            ),
            ("-L $follower/v1/kv/$key?redirect=true", "(status, body) == (200, 'v')"),
        ),
        ("at(follower).put(key, 'v').created",),  # which needs no redirect
        (("put $key v --endpoints $follower", "code == 0"),),
        before=("leader := url_of(client.cluster()['leader'])", "follower := other_url(leader)"),
    ),
    Row(
        "Idempotency-Key: <token> makes any write safe to repeat; 422 with another body",
        (
            (
                """-X POST -H 'Idempotency-Key: $key' $url/v1/txn
                -d '{"then": [{"increment": {"key": "$key"}}]}'""",
                "json['results'][0]['increment']['value'] == 1",
            ),
            (
                """-X POST -H 'Idempotency-Key: $key' $other/v1/txn
                -d '{"then": [{"increment": {"key": "$key"}}]}'""",
                "json['results'][0]['increment']['value'] == 1",
            ),
            ("-X DELETE -H 'Idempotency-Key: $key' $url/v1/kv/$key", "status == 422"),
        ),
        (
            "client.increment(key, idempotency_key=key) == client.increment(key, idempotency_key=key)",
            "raised(client.delete, key, idempotency_key=key).status == 422",
        ),
        (
            ("put $key v --idempotency-key $key", "code == 0 and out.startswith('created')"),
            ("put $key v --idempotency-key $key --endpoints $other", "out.startswith('created')"),
            ("delete $key --idempotency-key $key", "code == 1"),
        ),
        before=("other := other_url('')",),
    ),
    Row(
        "Errors: application/problem+json with type title status detail code outcome",
        (
            (
                "$url/v1/kv/$key",
                "headers['content-type'] == 'application/problem+json' and json['outcome'] == 'not_applied'"
                " and {'type', 'title', 'status', 'detail', 'code'} <= json.keys() and status == 404",
            ),
            ("$url/v1/kv/$key?revison=1", "status == 400"),
            ("-X POST $url/v1/kv/$key", "status == 405 and 'PUT' in headers['allow']"),
        ),
        (
            "(error := raised(client.keep_alive, 10**15)).status == 404 and error.outcome == 'not_applied'",
            "client.get(key) is None and raised(client.get, key, consistency='strong').status == 400",
        ),
        (
            ("get $key", "code == 1 and err == 'Error: there is no key %s\\n' % key"),
            ("get $key --revison 1", "code == 2"),
        ),
    ),
    Row(
        "410 revision compacted, with the oldest",
        (
            ("$url/v1/kv/$key?revision=$old", "status == 410 and json['oldest'] >= now"),
            ("$url/v1/watch?key=$key&from=$old", "status == 410"),
        ),
        (
            "(error := raised(client.get, key, revision=old)).status == 410 and error.extra['oldest'] >= now",
            "raised(first, client.watch(key, from_revision=old)).status == 410",
        ),
        (
            ("get $key --revision $old", "code == 1 and 'compacted' in err"),
            ("watch --key $key --from $old", "code == 1 and 'compacted' in err"),
        ),
        before=(f"old := {PUT}.revision", "now := client.put(key, 'w').revision", "client.compact(now)"),
    ),
    Row(
        "Limits: key 4 KiB, value 1 MiB (413), request 4 MiB, 1,000 operations a txn, 10,000 a batch",
        (
            ("-X PUT -d v $url/v1/kv/$long", "status == 413"),
            ("-X PUT --data-binary @$large $url/v1/kv/$key", "status == 413 and json['code'] == 'too_large'"),
            ("-X POST -d @$many $url/v1/txn", "status == 413"),
            ("-X POST -d @$more $url/v1/batch", "status == 413"),
        ),
        (
            "raised(client.put, long, 'v').status == 413",
            "raised(client.put, key, mib + b'v').status == 413",
            "raised(client.commit, Txn(then=(Get(key),) * 1_001)).status == 413",
            "raised(client.batch, [Get(key)] * 10_001).status == 413",
            "client.put(key, mib).created and client.put(long[1:], 'v').version",
        ),
        (
            ("put $long v", "code == 1"),
            ("txn $many", "code == 1"),
            ("batch $more", "code == 1"),
        ),
        before=(
            "(long := 'k' * 4097) and (mib := bytes(1 << 20)) and (large := fresh(mib + b'v'))",
            "many := saved({'then': [{'get': {'key': 'k'}}] * 1_001})",
            "more := saved({'ops': [{'get': {'key': 'k'}}] * 10_001})",
        ),
    ),
    Row(
        "msgpack by Content-Type and Accept; keys are percent-decoded; durations 500ms, 30s, 5m",
        (
            (
                "-X POST -H 'Content-Type: application/msgpack' -H 'Accept: application/json'"
                " --data-binary @$packed $url/v1/batch",
                "status == 200 and json['results'][0]['put']['created']",
            ),
            (
                "-H 'Accept: application/msgpack' '$url/v1/kv/$key%20%2F?timeout=9000ms'",
                "headers['content-type'] == 'application/msgpack'",
            ),
            ("$url/v1/kv/$key?timeout=5m", "status == 400"),  # longer than a request may wait
            ("-X PUT -d v $url/v1/kv/$key?ttl=5m", "status == 201"),
        ),
        ("client.put(key + ' /é', 'v').created and client.get(key + ' /é', timeout=9).text == 'v'",),
        (("put '$key /é' v --timeout 9000ms", "code == 0"), ("get '$key /é' --timeout 1m", "out == 'v'")),
        before=("packed := fresh(msgpack.packb({'ops': [{'put': {'key': key + ' /', 'value': b'v'}}]}))",),
    ),
)

# With two of three nodes dead.
WITHOUT_A_MAJORITY = (
    Row(
        "503 no leader or no quorum (with Retry-After); a request never hangs past ?timeout=",
        (
            (
                "$alive/v1/kv/$key?timeout=300ms",
                "status == 503 and json['code'] == 'no_quorum' and int(headers['retry-after']) > 0"
                " and json['retry_after_ms'] > 0 and json['outcome'] == 'not_applied'",
            ),
            ("$alive/livez", "status == 200"),
            ("$alive/readyz", "status == 503"),
            ("$alive/v1/kv/$key?consistency=stale", "status == 404 and 'raftkv-staleness-ms' in headers"),
        ),
        (
            "raised(client.get, key, timeout=1).status == 503",
            "client.read(key, consistency='stale').node == survivor",
        ),
        (
            ("get $key --timeout 1s", "code == 4"),
            ("election leader $key --timeout 1s", "code == 4"),
            ("health --ready --endpoints $alive", "code == 1"),
            ("health --endpoints $alive", "code == 0"),
        ),
    ),
)

# What only the command line has. serve runs the nodes; local is in tests/cli/test_local and test_real,
# simulate, which takes its time, in tests/sim; bench in tests/cli/test_bench.py.
COMMANDS = (
    Row(
        "raftkv verify HISTORY.jsonl",
        None,
        None,
        (("verify $good", "code == 0"),),
        before=("good := fresh(b'')",),
    ),
    Row(
        "every option also as RAFTKV_<OPTION> and from a TOML file by --config",
        None,
        None,
        (("--config $file get $key", "code == 0 and json['value'] == 'v'"),),
        before=(PUT, "file := fresh(b'output = \"json\"')"),
    ),
)

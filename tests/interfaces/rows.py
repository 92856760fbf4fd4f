"""The table of keys and ranges, as data: for each row how curl, the client and the command line do it.

A way is one step or several: what is run, and what must hold of it then, a Python expression (of a client's
step both are one). ``$key`` is a key of that row's and way's own, ``$url`` one of the nodes; what is named by
``before`` and by an expression's ``:=`` is there for the steps after it, also as ``$name``. What curl got is
``status``, ``headers``, ``body``, ``json``; what a command gave is ``code``, ``out``, ``err``, ``json``.
None: it isn't for that one.
"""

from __future__ import annotations

from dataclasses import dataclass

Steps = tuple[tuple[str, str], ...] | None


@dataclass(frozen=True)
class Row:
    """``before``: what the client does first, for each way; the text of ``call`` is the table's."""

    call: str
    curl: Steps
    client: tuple[str, ...] | None
    cli: Steps
    before: tuple[str, ...] = ()


PUT = "client.put(key, 'v')"
HELD = "lease := client.grant(60).lease"

KEYS = (
    Row(
        "PUT /v1/kv/{key} 201 created, 200 replaced; JSON {key,revision,version,created}; ETag",
        (
            (
                "-X PUT --data-binary v $url/v1/kv/$key",
                "status == 201 and json['created'] and headers['etag'] == '\"%d\"' % json['revision']",
            ),
            ("-X PUT --data-binary w $url/v1/kv/$key", "status == 200 and json['version'] == 2"),
        ),
        ("client.put(key, 'v').created", "client.put(key, 'w').version == 2"),
        (
            ("put $key v", "code == 0 and out.startswith('created')"),
            ("put $key w --output json", "json['version'] == 2 and json['key'] == key"),
        ),
    ),
    Row(
        "PUT ?ttl=30s or ?lease=<id>",
        (
            ("-X PUT -d v $url/v1/kv/$key?ttl=30s", "status == 201 and json['lease'] > 0"),
            ("-X PUT -d v $url/v1/kv/$key?lease=$lease", "status == 200 and json['lease'] == lease"),
        ),
        (
            "client.put(key, 'v', ttl=30) and client.get(key).lease > 0",
            "client.put(key, 'v', lease=lease) and client.get(key).lease == lease",
        ),
        (
            ("put $key v --ttl 30s", "code == 0 and ', lease ' in out"),
            ("put $key v --lease $lease --output json", "json['lease'] == lease"),
        ),
        before=(HELD,),
    ),
    Row(
        "PUT: Content-Type is kept and echoed (curl's default form type counts as none)",
        (
            ("-X PUT -H 'Content-Type: text/x' -d v $url/v1/kv/$key", "status == 201"),
            ("$url/v1/kv/$key", "headers['content-type'] == 'text/x'"),
            ("-X PUT -d v $url/v1/kv/$key", "status == 200"),
            ("$url/v1/kv/$key", "headers['content-type'] == 'application/octet-stream'"),
        ),
        ("client.put(key, 'v', content_type='text/x') and client.get(key).content_type == 'text/x'",),
        (
            ("put $key v --content-type text/x", "code == 0"),
            ("get $key --output json", "json['content_type'] == 'text/x'"),
        ),
    ),
    Row(
        "GET /v1/kv/{key} the raw value; ETag, Raftkv-Revision, Raftkv-Mod-Revision; HEAD too",
        (
            (
                "$url/v1/kv/$key",
                "(status, body, headers['raftkv-mod-revision']) == (200, 'v', str(put.revision))"
                " and headers['etag'] == '\"%d\"' % put.revision"
                " and int(headers['raftkv-revision']) >= put.revision",
            ),
            ("--head $url/v1/kv/$key", "status == 200 and not body and headers['raftkv-version'] == '1'"),
        ),
        ("client.get(key).value == b'v' and client.get(key).mod_revision == put.revision",),
        (("get $key", "(code, out) == (0, 'v')"),),
        before=(f"put := {PUT}",),
    ),
    Row(
        "GET: 304 on If-None-Match",
        (("-H 'If-None-Match: \"$revision\"' $url/v1/kv/$key", "status == 304 and not body"),),
        None,  # it has no cache: a view is what follows
        None,
        before=(f"revision := {PUT}.revision",),
    ),
    Row(
        "GET: Accept: application/json (or ?format=json) gives the envelope",
        (
            (
                "-H 'Accept: application/json' $url/v1/kv/$key",
                "json == {'key': key, 'value': 'v', 'create_revision': revision, 'mod_revision': revision,"
                " 'version': 1, 'lease': None, 'content_type': None}",
            ),
            ("$url/v1/kv/$key?format=json", "json['value'] == 'v'"),
            ("$url/v1/kv/bytes?format=json", "json['value_base64'] == '/w=='"),
        ),
        ("client.get(key).create_revision == revision and client.get('bytes').value == b'\\xff'",),
        (("get $key --output json", "(json['value'], json['mod_revision']) == ('v', revision)"),),
        before=(f"revision := {PUT}.revision", "client.put('bytes', b'\\xff')"),
    ),
    Row(
        "GET ?revision=N reads the past",
        (("$url/v1/kv/$key?revision=$revision", "body == 'v'"),),
        ("client.get(key, revision=revision).text == 'v'",),
        (("get $key --revision $revision", "out == 'v'"),),
        before=(f"revision := {PUT}.revision", "client.put(key, 'w')"),
    ),
    Row(
        "GET ?wait=30s&since=N waits for a change after N",
        (
            ("$url/v1/kv/$key?wait=30s&since=$since", "(status, body) == (200, 'w')"),
            ("$url/v1/kv/$key?wait=10ms&since=$now", "status == 304"),
        ),
        (
            "client.poll(key, since=since, wait=30).item.text == 'w'",
            "client.poll(key, since=now, wait=0.01) is None",
        ),
        (("watch --key $key --from $now --limit 1", "out == '%d\\tput\\t%s\\tw\\n' % (now, key)"),),
        before=(f"since := {PUT}.revision", "now := client.put(key, 'w').revision"),
    ),
    Row(
        'DELETE /v1/kv/{key} 200 {"deleted":0|1,"revision"}',
        (
            ("-X DELETE $url/v1/kv/$key", "status == 200 and json['deleted'] == 1 and json['revision'] > 0"),
            ("-X DELETE $url/v1/kv/$key", "status == 200 and json['deleted'] == 0"),
        ),
        ("client.delete(key).deleted == 1", "client.delete(key).deleted == 0"),
        (
            ("delete $key --output json", "code == 0 and json['deleted'] == 1"),
            ("delete $key", "code == 0 and out == 'there was no key %s\\n' % key"),
        ),
        before=(PUT,),
    ),
    Row(
        'conditions: If-Match: "42", If-None-Match: *, or ?if_revision=42, ?if_absent=true; failing: 412',
        (
            (
                "-X PUT -d w -H 'If-Match: \"1\"' $url/v1/kv/$key",
                "status == 412 and json['mod_revision'] == revision",
            ),
            ("-X PUT -d w -H 'If-None-Match: *' $url/v1/kv/$key", "status == 412"),
            ("-X PUT -d w $url/v1/kv/$key?if_absent=true", "status == 412"),
            (
                "-X PUT -d w -H 'If-Match: \"$revision\"' $url/v1/kv/$key",
                "status == 200 and (now := json['revision'])",
            ),
            ("-X DELETE $url/v1/kv/$key?if_revision=$now", "status == 200"),
        ),
        (
            "raised(client.put, key, 'w', if_absent=True).extra['mod_revision'] == revision",
            "raised(client.put, key, 'w', if_revision=1).status == 412",
            "client.put(key, 'w', if_revision=revision)",
            "raised(client.delete, key, if_revision=1).status == 412",
        ),
        (
            ("put $key w --if-absent", "code == 1 and 'at revision %d' % revision in err"),
            ("put $key w --if-revision $revision --output json", "code == 0 and (now := json['revision'])"),
            ("delete $key --if-revision 1", "code == 1"),
            ("delete $key --if-revision $now", "code == 0"),
        ),
        before=(f"revision := {PUT}.revision",),
    ),
    Row(
        "GET /v1/kv?prefix=&start=&end=&limit=&cursor=&keys_only=&reverse=&delimiter=&revision=",
        (
            (
                "$url/v1/kv?prefix=$key/&limit=2&keys_only=true",
                "[each['key'][-1] for each in json['items']] == ['1', '2'] and (cursor := json['cursor'])",
            ),
            (
                "$url/v1/kv?prefix=$key/&cursor=$cursor",
                "[each['key'] for each in json['items']] == [key + '/3/x']",
            ),
            ("$url/v1/kv?start=$key/2&end=$key/3&reverse=true&revision=$revision", "len(json['items']) == 1"),
            ("$url/v1/kv?prefix=$key/&delimiter=/", "json['prefixes'] == [key + '/3/']"),
        ),
        (
            "[item.key[-1] for item in client.scan(key + '/')] == ['1', '2', 'x']",
            "client.page(prefix=key + '/', limit=2, keys_only=True).cursor",
            "len(client.page(start=key + '/2', end=key + '/3', reverse=True, revision=revision).items) == 1",
            "client.page(prefix=key + '/', delimiter='/').prefixes == (key + '/3/',)",
        ),
        (
            ("list $key/ --limit 2 --keys-only", "out.split() == [key + '/1', key + '/2']"),
            ("list --start $key/2 --end $key/3 --reverse --revision $revision", "out == key + '/2\\tv\\n'"),
            ("list $key/ --delimiter / --output json", "json[-1] == {'prefix': key + '/3/'}"),
        ),
        before=(
            "client.put(key + '/1', 'v')",
            "client.put(key + '/2', 'v')",
            "revision := client.put(key + '/3/x', 'v').revision",
        ),
    ),
    Row(
        "DELETE /v1/kv?prefix= / ?start=&end= range delete, one revision; without either: 400",
        (
            ("-X DELETE $url/v1/kv?prefix=$key/a", "json['deleted'] == 2 and json['revision'] > revision"),
            ("-X DELETE $url/v1/kv?start=$key/b&end=$key/c", "json['deleted'] == 1"),
            ("-X DELETE $url/v1/kv", "status == 400"),
        ),
        (
            "client.delete_range(prefix=key + '/a').deleted == 2",
            "client.delete_range(start=key + '/b', end=key + '/c').deleted == 1",
            "raised(client.delete_range).status == 400",
        ),
        (
            ("delete $key/a --prefix", "out.startswith('deleted 2 keys')"),
            ("delete $key/b --end $key/c", "out.startswith('deleted 1 key ')"),
            ("delete", "code == 2"),
        ),
        before=(
            "client.put(key + '/a1', 'v')",
            "client.put(key + '/a2', 'v')",
            "revision := client.put(key + '/b', 'v').revision",
        ),
    ),
    Row(
        'POST /v1/txn {"if":[...],"then":[ops],"else":[ops]}; one revision, all or nothing',
        (
            (
                """-X POST $url/v1/txn -d '{
                "if": [{"key": "$key", "target": "value", "op": "==", "value": "v"}],
                "then": [{"increment": {"key": "$key/n"}}, {"txn": {"then": [{"delete": {"key": "$key"}}]}}],
                "else": [{"get": {"key": "$key"}}]}'""",
                "status == 200 and json['succeeded'] and json['results'][0]['increment']['value'] == 1",
            ),
        ),
        (
            "client.txn().when(Value(key) == 'v').then(Delete(key), Put(key + '/n', '1')).commit().succeeded",
            "client.txn().when(Value(key) == 'v').otherwise(Get(key)).commit().results == (None,)",
        ),
        (
            ("txn $file", "code == 0 and out.startswith('then was done') and 'delete: 1 deleted' in out"),
            ("txn $file --output json", "code == 1 and not json['succeeded']"),
        ),
        before=(
            PUT,
            """file := saved({"if": [{"key": key, "target": "value", "op": "==", "value": "v"}],
            "then": [{"delete": {"key": key}}]})""",
        ),
    ),
    Row(
        "POST /v1/batch many independent operations, each with its own result, in order; one log entry",
        (
            (
                """-X POST $url/v1/batch -d '{"ops": [{"increment": {"key": "$key"}},
                {"put": {"key": "$key", "value": "w"}}]}'""",
                "json['results'][0]['error']['code'] == 'not_a_number' and 'put' in json['results'][1]",
            ),
        ),
        ("client.batch([Increment(key), Put(key, 'w')]).results[1].version == 2",),
        (("batch $file", "code == 1 and 'put: replaced (version 2)' in out"),),
        before=(
            PUT,
            """file := saved({"ops": [{"increment": {"key": key}}, {"put": {"key": key, "value": "w"}}]})""",
        ),
    ),
    Row(
        "GET /v1/watch?prefix=|key=&from=N&prev=true server-sent events; Last-Event-ID; ndjson",
        (
            (
                "-N $url/v1/watch?prefix=$key&from=$revision&prev=true",
                "'id: %d\\nevent: put\\n' % revision in body and 'event: delete\\n' in body"
                " and '\"prev\":{' in body",
            ),
            ("-N -H 'Last-Event-ID: $revision' $url/v1/watch?key=$key", "'event: delete\\n' in body"),
            (
                "-N -H 'Accept: application/x-ndjson' $url/v1/watch?key=$key&from=$revision",
                '\'"event":"delete"\' in body',
            ),
        ),
        (
            "first(client.watch(key, from_revision=revision)).item.text == 'v'",
            "first(client.watch(prefix=key, from_revision=revision + 1, previous=True)).previous.text == 'v'",
        ),
        (
            (
                "watch --prefix $key --from $revision --limit 2",
                "[line.split('\\t')[1] for line in out.splitlines()] == ['put', 'delete']",
            ),
            ("watch --key $key --from $gone --prev --limit 1 --output json", "json['prev']['value'] == 'v'"),
        ),
        before=(f"revision := {PUT}.revision", "gone := client.delete(key).revision"),
    ),
)

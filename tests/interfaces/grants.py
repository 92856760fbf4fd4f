"""The tables of leases and what is made of them, and of the cluster itself; see ``rows``.

Left out: ``/metrics`` and ``/openapi.json``, which belong to other work and have tests of their own.
"""

from __future__ import annotations

from tests.interfaces.rows import HELD, PUT, Row

LEASES = (
    Row(
        "/v1/leases, /v1/leases/{id}, .../keepalive: grant, look, keep alive, revoke",
        (
            ("""-X POST $url/v1/leases -d '{"ttl": "30s"}'""", "status == 201 and (own := json['lease'])"),
            ("-X PUT -d v $url/v1/kv/$key?lease=$own", "status == 201"),
            ("-X POST $url/v1/leases/$own/keepalive", "json['ttl_ms'] == 30_000"),
            ("$url/v1/leases/$own", "json['keys'] == [{'key': key}] and json['remaining_ms'] <= 30_000"),
            ("$url/v1/leases", "own in [each['lease'] for each in json['leases']]"),
            ("-X DELETE $url/v1/leases/$own", "json['deleted'] == 1"),
            ("$url/v1/kv/$key", "status == 404"),
        ),
        (
            "(own := client.grant(30).lease) and client.put(key, 'v', lease=own)",
            "client.keep_alive(own).ttl_s == 30 and client.lease(own).keys == (key,)",
            "own in [each.lease for each in client.leases()]",
            "client.revoke(own).deleted == 1 and client.get(key) is None",
        ),
        (
            ("lease grant 30s --output json", "own := json['lease']"),
            ("put $key v --lease $own", "code == 0"),
            ("lease keepalive $own", "out == 'lease %d lives for 30000 ms\\n' % own"),
            ("lease get $own", "out.splitlines()[1] == key"),
            ("lease list", "any(line.startswith('%d ' % own) for line in out.splitlines())"),
            ("lease revoke $own", "'1 keys went with it' in out"),
            ("get $key", "code == 1"),
        ),
    ),
    Row(
        "/v1/locks/{name}: acquire (with wait), release, look; a grant carries a fencing token",
        (
            (
                """-X POST $url/v1/locks/$key?wait=1s -d '{"ttl": "30s"}'""",
                "status == 200 and json['fencing_token'] > 0 and (own := json['lease'])",
            ),
            ("""-X POST $url/v1/locks/$key -d '{"ttl": "30s"}'""", "status == 409"),
            ("$url/v1/locks/$key", "json['holder']['lease'] == own and json['waiters'] == 0"),
            ("-X DELETE $url/v1/locks/$key?lease=$own", "json['deleted'] == 1"),
        ),
        (
            "(lock := client.lock(key, ttl=30, wait=1)).acquire() > 0",
            "client.lock_info(key).holder.fencing_token == lock.fencing_token",
            "raised(client.lock(key, wait=0).acquire).code == 'lock_held'",
            "lock.release() is None and client.lock_info(key).holder is None",
        ),
        (
            ("lock $key --wait 1s -- sh -c 'test $$RAFTKV_FENCING_TOKEN -gt 0'", "code == 0"),
            ("lock $key --show", "code == 1 and 'nobody has' in err"),
        ),
    ),
    Row(
        "/v1/elections/{name}: campaign, proclaim, look, observe, resign",
        (
            ("""-X POST $url/v1/elections/$key -d '{"lease": $lease, "value": "me"}'""", "status == 200"),
            ("""-X PUT $url/v1/elections/$key?lease=$lease -d '{"value": "busy"}'""", "status == 200"),
            ("$url/v1/elections/$key", "json['leader']['value'] == 'busy'"),
            ("-N $url/v1/elections/$key/observe", "'event: leader\\n' in body and 'busy' in body"),
            ("-X DELETE $url/v1/elections/$key?lease=$lease", "json['deleted'] == 1"),
        ),
        (
            "(lead := client.campaign(key, 'me', ttl=30)).acquire() and lead.proclaim('busy') is None",
            "client.leader(key).value == b'busy' and first(client.observe(key)).value == b'busy'",
            "lead.release() is None and client.leader(key) is None",
        ),
        (
            ("election campaign $key --value me -- true", "code == 0"),
            ("election campaign $key --lease $lease --value me", "code == 0"),
            ("election proclaim $key busy --lease $lease", "code == 0"),
            ("election leader $key --output json", "json['leader']['value'] == 'busy'"),
            ("election observe $key --limit 1", "out.startswith('leads\\tbusy\\t')"),
            ("election resign $key --lease $lease", "code == 0"),
        ),
        before=(HELD,),
    ),
    Row(
        "/v1/services/{name}: register an instance with a TTL, list the live ones, watch them",
        (
            (
                """-X POST $url/v1/services/$key -d '{"id": "i", "address": "h:80", "ttl": "30s"}'""",
                "status == 201",
            ),
            ("$url/v1/services/$key", "json['instances'][0]['address'] == 'h:80'"),
            ("-N $url/v1/services/$key?watch=true", "'event: instances\\n' in body and 'h:80' in body"),
            ("$url/v1/services", "{'name': key} in json['services']"),
            ("-X DELETE $url/v1/services/$key/i", "json['deleted'] == 1"),
        ),
        (
            "(one := client.register(key, 'h:80', id='i', ttl=30)).__enter__() and one.listed",
            "client.instances(key)[0].address == 'h:80' and key in client.services()",
            "first(client.follow_instances(key))[0].id == 'i'",
            "client.deregister(key, 'i') and one.__exit__(None, None, None) is None",
        ),
        (
            ("service register $key h:80 --id i --ttl 30s", "code == 0"),
            ("service list $key", "'h:80' in out"),
            ("service list", "key in out.split()"),
            ("service watch $key --limit 1", "out.startswith('added\\ti\\th:80')"),
            ("service remove $key i", "code == 0"),
            ("service register $key h:80 -- true", "code == 0"),
        ),
    ),
)

CLUSTER = (
    Row(
        "/v1/cluster, /v1/status: who leads, each member's role, indexes, lag, how many more may be lost",
        (
            (
                "$url/v1/cluster",
                "json['may_lose'] == 1 and {each['lag'] for each in json['members']} != {None}",
            ),
            ("$url/v1/status", "json['role'] in ('leader', 'follower') and json['last_applied'] > 0"),
        ),
        (
            "client.cluster()['may_lose'] == 1 and len(client.cluster()['members']) == 3",
            "client.status()['role'] in ('leader', 'follower')",
        ),
        (("status --output json", "sorted(each['role'] for each in json)[1:] == ['follower', 'leader']"),),
    ),
    Row(
        "/v1/cluster/members: add, promote, remove",
        (
            (
                """-X POST $url/v1/cluster/members
                -d '{"id": "$node", "address": "127.0.0.1:1", "promote": false}'""",
                "status == 200 and [each['role'] for each in json['members']].count('learner') == 1",
            ),
            ("""-X PUT $url/v1/cluster/members/$node -d '{"address": "127.0.0.1:2"}'""", "status == 200"),
            ("-X POST $url/v1/cluster/members/$node/promote", "status == 409"),  # it hasn't caught up
            ("-X DELETE $url/v1/cluster/members/$node", "len(json['members']) == 3"),
            ("$url/v1/cluster/members", "node not in [each['id'] for each in json['members']]"),
        ),
        (
            "client.add_member(node, '127.0.0.1:1', promote=False)[node].role == 'learner'",
            "client.move_member(node, '127.0.0.1:2')[node].address == '127.0.0.1:2'",
            "raised(client.promote_member, node).code == 'change_refused'",
            "len(client.remove_member(node).members) == 3 and len(client.members().members) == 3",
        ),
        (
            ("member add $node 127.0.0.1:1 --learner", "code == 0 and 'learns only' in out"),
            ("member move $node 127.0.0.1:2", "code == 0"),
            ("member promote $node", "code == 1"),
            ("member remove $node", "code == 0"),
            ("members --output json", "len(json['members']) == 3"),
        ),
        before=("node := 'm' + key.replace('/', '-')",),
    ),
    Row(
        "/v1/cluster/leader: transfer leadership",
        (
            (
                """-X POST $url/v1/cluster/leader -d '{"id": "$other"}'""",
                "status == 200 and json['leader'] == other",
            ),
        ),
        ("client.transfer(other) == other",),
        (("transfer $other", "code == 0 and out.startswith(other + ' leads')"),),
        before=("other := other_than(client.cluster()['leader'])",),
    ),
    Row(
        "/v1/snapshot: download a backup; take a snapshot now",
        (
            ("$url/v1/snapshot", "status == 200 and 'filename=' in headers['content-disposition']"),
            ("-X POST $url/v1/snapshot", "status == 200 and json['index'] > 0 and json['bytes'] > 0"),
        ),
        ("len(b''.join(client.backup())) > 0", "client.take_snapshot().index > 0"),
        (
            ("backup $file", "code == 0"),
            ("snapshot verify $file", "code == 0 and 'whole' in out"),
            ("restore $file --data-dir $file.d --id n1 --cluster n1=127.0.0.1:1", "code == 0"),
            ("wal verify $file.d", "code == 0"),
            ("wal dump $file.d", "code == 0"),
            ("snapshot take --output json", "json['bytes'] > 0"),
        ),
        before=(PUT, "file := fresh()"),
    ),
    Row(
        "/livez, /readyz?verbose: liveness never depends on a quorum; readiness does",
        (
            ("$url/livez", "status == 200 and json['status'] == 'ok'"),
            ("$url/readyz?verbose", "status == 200 and json['checks']['quorum']"),
        ),
        ("client.ready() in ('n1', 'n2', 'n3')",),
        (("health", "code == 0"), ("health --ready", "code == 0")),
    ),
)

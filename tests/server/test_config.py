"""The configuration: what is wrong gets one clear line and exit code 78; cluster ids tell clusters apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftkv.config import Address, Config, parse_cluster, parse_join
from raftkv.consensus.types import NodeId, Timing
from raftkv.errors import StartError

CLUSTER = "n1=127.0.0.1:9001,n2=127.0.0.1:9002,n3=127.0.0.1:9003"


def config(**fields: Any) -> Config:
    """A sound configuration, but for ``fields``."""
    sound: dict[str, Any] = {
        "node_id": NodeId("n1"),
        "data_dir": Path("data"),
        "listen": Address("127.0.0.1", 8001),
        "peer_listen": Address("127.0.0.1", 9001),
        "cluster": parse_cluster(CLUSTER),
    }
    return Config(**{**sound, **fields})


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(StartError) as refused:
        config(**fields)
    assert refused.value.exit_code == 78
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_defaults() -> None:
    sound = config()
    assert sound.timing == Timing(50, 300, 600)
    assert sound.founders == {"n1": "127.0.0.1:9001", "n2": "127.0.0.1:9002", "n3": "127.0.0.1:9003"}
    assert sound.peer_address == "127.0.0.1:9001"
    assert sound.client_url == "http://127.0.0.1:8001"


NAN, INFINITE = float("nan"), float("inf")
WRONG: list[tuple[str, Any, str]] = [
    ("node_id", "n4", "not --id n4"),
    ("node_id", "", "node id ''"),
    ("node_id", "n 1", "node id 'n 1'"),
    ("node_id", "n" * 65, "node id"),
    ("node_id", "n\n1", "node id"),
    ("node_id", "é", "node id"),
    ("cluster", {}, "give --cluster to found one, or --join"),
    ("cluster", {NodeId("n1"): Address("a", 1), NodeId("n/2"): Address("b", 1)}, "node id 'n/2'"),
    ("cluster", {NodeId("n1"): Address("a", 1), NodeId("n2"): Address("a", 1)}, "the same address a:1"),
    ("advertise", "n1:8001", "--advertise"),
    ("advertise", "ftp://n1", "--advertise"),
    ("advertise", "http://n1/path", "--advertise"),
    ("advertise", "http://n1 ", "--advertise"),
    ("advertise", "http://", "--advertise"),
    ("heartbeat_ms", 300.0, "heartbeat"),
    ("election_timeout_min_ms", 600.0, "election timeout"),
    ("election_timeout_max_ms", 300.0, "election timeout"),
    ("snapshot_bytes", 0, "snapshot_bytes must be positive"),
    ("snapshot_send_bytes_per_s", 0, "snapshot_send_bytes_per_s must be positive"),
    ("snapshot_margin_bytes", -1, "snapshot_margin_bytes must not be negative"),
    ("segment_bytes", 4095, "segment_bytes"),
    *((name, value, name) for name in ("segment_bytes", "max_key_bytes") for value in (0, -1)),
    *((name, value, name) for name in ("max_value_bytes", "max_request_bytes") for value in (0, -1)),
    *(
        (name, value, name)
        for name in ("request_timeout_ms", "max_request_timeout_ms", "slow_fsync_ms", "heartbeat_ms")
        for value in (0.0, -1.0, NAN, INFINITE)
    ),
    ("election_timeout_min_ms", NAN, "election_timeout_min_ms"),
    ("election_timeout_max_ms", INFINITE, "election_timeout_max_ms"),
    ("log_level", "loud", "log_level"),
    ("log_level", "INFO", "log_level"),
    ("log_format", "xml", "log_format"),
]


@pytest.mark.parametrize(("name", "value", "said"), WRONG)
def test_a_wrong_field(name: str, value: Any, said: str) -> None:
    assert said in refusal({name: value})


@pytest.mark.parametrize("advertise", ["http://h", "https://h:1", "http://h:8001/", "http://[::1]:8001"])
def test_advertised_urls(advertise: str) -> None:
    assert config(advertise=advertise).client_url == advertise.rstrip("/")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8001", "127.0.0.1", 8001),
        ("node-1.example:1", "node-1.example", 1),
        ("[::1]:65535", "::1", 65535),
        ("0.0.0.0:80", "0.0.0.0", 80),
    ],
)
def test_an_address_comes_back_as_it_was_given(text: str, host: str, port: int) -> None:
    address = Address.parse(text, "--listen")
    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "h:",
        ":1",
        "h:0",
        "h:65536",
        "h:-1",
        "h:1x",
        "h:999999",
        "::1:80",
        "[::1]",
        "[g]:1",
        "a b:1",
        "http://h:1",
        "h:1\n",
        "h:٣",
    ],
)
def test_a_wrong_address(text: str) -> None:
    with pytest.raises(StartError, match=r"^--listen must be HOST:PORT, got ") as refused:
        Address.parse(text, "--listen")
    assert refused.value.exit_code == 78
    assert "\n" not in str(refused.value)


def test_a_cluster_is_sorted_by_id() -> None:
    parsed = parse_cluster(" n2=b:2 ,n10=c:3, n1=a:1,")
    assert list(parsed.items()) == [
        ("n1", Address("a", 1)),
        ("n10", Address("c", 3)),
        ("n2", Address("b", 2)),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n1", "ID=HOST:PORT"),
        ("n1:9001", "ID=HOST:PORT"),
        ("n1=a:1,n1=b:2", "'n1' twice"),
        ("n1=a", "'n1'"),
        ("n1=", "'n1'"),
        ("n\n1=a", r"'n\n1'"),
        ("n1=a:1;n2=b:2", "'n1'"),
    ],
)
def test_a_wrong_cluster(text: str, said: str) -> None:
    with pytest.raises(StartError) as refused:
        parse_cluster(text)
    assert refused.value.exit_code == 78
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_cluster_ids_are_equal_for_all_members_in_whatever_order_they_are_told() -> None:
    cluster = parse_cluster(CLUSTER)
    backwards = dict(reversed(cluster.items()))
    ids = {
        config(node_id=NodeId(name), cluster=told).cluster_id
        for name in ("n1", "n2", "n3")
        for told in (cluster, backwards)
    }
    assert len(ids) == 1
    (cluster_id,) = ids
    assert len(cluster_id) == 16
    assert int(cluster_id, 16) >= 0


def test_cluster_ids_differ_with_what_makes_a_cluster() -> None:
    other_port = parse_cluster(CLUSTER.replace("9003", "9004"))
    other_member = parse_cluster(CLUSTER.replace("n3", "n4"))
    smaller = parse_cluster("n1=127.0.0.1:9001")
    unnamed = [config(cluster=cluster).cluster_id for cluster in (other_port, other_member, smaller)]
    named = [config(cluster_name=name).cluster_id for name in ("", "a", "b")]
    named += [config(cluster_name="a", cluster_token=token).cluster_id for token in ("a", "b")]
    assert len({*unnamed, *named}) == 8


def test_a_named_cluster_may_move_to_other_addresses() -> None:
    """That is what a name is for."""
    moved = parse_cluster(CLUSTER.replace("127.0.0.1", "10.0.0.1"))
    assert config(cluster_name="a", cluster=moved).cluster_id == config(cluster_name="a").cluster_id
    fewer = parse_cluster("n1=127.0.0.1:9001,n2=127.0.0.1:9002")
    assert config(cluster_name="a", cluster=fewer).cluster_id != config(cluster_name="a").cluster_id


def test_what_a_node_keeps_to_itself_is_not_in_the_cluster_id() -> None:
    own = config(heartbeat_ms=10.0, listen=Address("h", 1), advertise="http://h", segment_bytes=4096)
    assert own.cluster_id == config().cluster_id


def test_the_cluster_id_of_a_release_stays() -> None:
    """It is in every log on disk: another rule would make strangers of a cluster's own nodes."""
    assert config().cluster_id == "f68dc1bffda5d3c1"
    assert config(cluster_name="prod").cluster_id == "d5427e5109eba4e6"


ANYWHERE = Address("0.0.0.0", 9001)


def test_where_others_find_this_node() -> None:
    """Where it is told to say; where the founders' list has it; where it listens, unless that is anywhere."""
    told = Address("n1.example", 7000)
    assert config(advertise_peer=told).peer_address == "n1.example:7000"
    assert config(peer_listen=ANYWHERE).peer_address == "127.0.0.1:9001"
    joining: dict[str, Any] = {"node_id": NodeId("n4"), "cluster": {}, "join": ("http://n1:8001",)}
    assert config(**joining).peer_address == "127.0.0.1:9001"
    assert config(**joining, peer_listen=ANYWHERE, advertise_peer=told).peer_address == "n1.example:7000"
    assert "--advertise-peer" in refusal({**joining, "peer_listen": ANYWHERE})
    assert config(**joining).founders == {}


def test_join() -> None:
    assert parse_join(["http://a:1/, http://b:2", "http://a:1"]) == ("http://a:1", "http://b:2")
    assert parse_join([]) == ()
    for wrong in ("a:1", "ftp://a", "http://"):
        with pytest.raises(StartError, match="--join wants URLs"):
            parse_join([wrong])

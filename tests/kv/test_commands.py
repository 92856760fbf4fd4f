"""The bytes of commands and batches: they are in logs on disk, so they never change."""

from __future__ import annotations

import msgpack
import pytest

from raftkv.kv.commands import Condition, ConditionKind, Opcode, encode_delete, encode_put
from raftkv.kv.session import BatchId, decode_batch, encode_batch

GOLDEN = {
    "put": (encode_put(b"k", b"v"), "95 01 c4016b c40176 c0 c0"),
    "put with a content type": (
        encode_put(b"k", b"v", "text/plain"),
        "95 01 c4016b c40176 aa746578742f706c61696e c0",
    ),
    "put an empty value": (encode_put(b"\x00\xff", b""), "95 01 c40200ff c400 c0 c0"),
    "put if absent": (
        encode_put(b"k", b"v", None, Condition(ConditionKind.ABSENT)),
        "95 01 c4016b c40176 c0 92 03 90",
    ),
    "put if at a revision": (
        encode_put(b"k", b"v", None, Condition(ConditionKind.REVISION_IN, (0, 300))),
        "95 01 c4016b c40176 c0 92 02 92 00 cd012c",
    ),
    "delete": (encode_delete(b"k"), "93 02 c4016b c0"),
    "delete if it exists": (
        encode_delete(b"k", Condition(ConditionKind.EXISTS)),
        "93 02 c4016b 92 01 90",
    ),
    "delete unless at a revision": (
        encode_delete(b"k", Condition(ConditionKind.REVISION_NOT_IN, (1 << 40,))),
        "93 02 c4016b 92 04 91 cf0000010000000000",
    ),
    "a batch": (
        encode_batch(BatchId("n1", 7, 300, 299), [encode_delete(b"a"), encode_put(b"b", b"")]),
        "96 01 a26e31 07 cd012c cd012b 92 93 02 c40161 c0 95 01 c40162 c400 c0 c0",
    ),
    "an empty batch": (encode_batch(BatchId("n1", 1, 1, 1), []), "96 01 a26e31 01 01 01 90"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(name: str) -> None:
    encoded, golden = GOLDEN[name]
    assert encoded == bytes.fromhex(golden)


def test_numbers_on_disk_stay_what_they_are() -> None:
    assert {kind.name: kind.value for kind in ConditionKind} == {
        "EXISTS": 1,
        "REVISION_IN": 2,
        "ABSENT": 3,
        "REVISION_NOT_IN": 4,
    }
    assert {opcode.name: opcode.value for opcode in Opcode} == {
        "PUT": 1,
        "DELETE": 2,
        "LEVEL": 3,
        "TICK": 4,
        "GET": 5,
        "RANGE": 6,
        "DELETE_RANGE": 7,
        "INCREMENT": 8,
        "TXN": 9,
        "BATCH": 10,
        "ONCE": 11,
        "GRANT": 12,
        "KEEP_ALIVE": 13,
        "REVOKE": 14,
        "COMPACT": 15,
    }


def test_a_batch_comes_back_as_it_went() -> None:
    batch = BatchId("node-3", 2**40, 2**33, 2**33 - 5)
    commands = [encode_put(b"%d" % i, b"x" * i) for i in range(100)]
    assert decode_batch(encode_batch(batch, commands)) == (
        batch,
        [msgpack.unpackb(command) for command in commands],
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "abcdef",
        [],
        [1, "n1", 1, 1, 1],
        [1, "n1", 1, 1, 1, [], 0],
        [2, "n1", 1, 1, 1, []],
        [True, "n1", 1, 1, 1, []],
        [1.0, "n1", 1, 1, 1, []],
        [1, b"n1", 1, 1, 1, []],
        [1, "n1", "1", 1, 1, []],
        [1, "n1", 1, None, 1, []],
        [1, "n1", 1, 1, 1.5, []],
        [1, "n1", True, 1, 1, []],
        [1, "n1", 1, 1, 1, {}],
        [1, "n1", 1, 1, 1, b""],
        {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1},
    ],
    ids=repr,
)
def test_what_is_no_batch_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"batch"):
        decode_batch(msgpack.packb(value))


def test_a_batch_with_more_behind_it_is_refused() -> None:
    data = encode_batch(BatchId("n1", 1, 1, 1), [encode_delete(b"a")])
    for junk in (b"\x00", b"\xc1", data):
        with pytest.raises(ValueError, match=r"not a batch"):
            decode_batch(data + junk)
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r"not a batch"):
            decode_batch(data[:end])

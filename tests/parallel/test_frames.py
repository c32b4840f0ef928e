"""Messages in whatever pieces they come, and what is none."""

from __future__ import annotations

import struct

import pytest

from plsc.parallel.frames import OF_RANK, OF_STRANGER, Decoder, Limits, NotAMessage, encode
from plsc.parallel.gathers import Gathers, texts
from plsc.parallel.naming import host_of, name_ranks, spans

MESSAGES = [({"a": 1}, b""), ({"b": ["ü", None]}, b"x" * 1000), ({}, b"\0PLSC")]


@pytest.mark.parametrize("size", [1, 7, 16, 10**6])
def test_messages_come_in_pieces(size):
    data, decoder = b"".join(piece for message in MESSAGES for piece in encode(*message)), Decoder(OF_RANK)
    pieces = [data[first : first + size] for first in range(0, len(data), size)]
    assert [message for piece in pieces for message in decoder.feed(piece)] == MESSAGES


def frame(header: bytes, body: bytes = b"", mark: bytes = b"PLSC", lengths: tuple | None = None) -> bytes:
    return struct.pack("!4sIQ", mark, *(lengths or (len(header), len(body)))) + header + body


@pytest.mark.parametrize("data", [
    b"G", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03", b"PLSX", b"\0", frame(b"{}", mark=b"PLSD"), frame(b"[1]"),
    frame(b"{"), frame(b"\xff\xff"), frame(b"[" * 4000), frame(b"{}", lengths=(4097, 0)), frame(b"{}", b"x"),
    frame(b"{}", lengths=(2, 2**63)), frame(b"NaN"), frame(b'{"a": 1}') + b"x",
])  # fmt: skip
def test_what_is_no_message_is_known_at_once(data):
    with pytest.raises(NotAMessage):
        list(Decoder(OF_STRANGER).feed(data))


def test_limits_may_grow_between_two_messages():
    decoder = Decoder(OF_STRANGER)
    messages = decoder.feed(b"".join([*encode({"a": 1}), *encode({"b": 1}, b"body")]))
    assert next(messages) == ({"a": 1}, b"")
    decoder.limits = Limits(100, 4)
    assert next(messages) == ({"b": 1}, b"body")


@pytest.mark.parametrize("bodies", [[b"a", b"b", b"c"], [b"a", b"a", b"a"], [b"", b"x", b""], [b"1", b"22", b"1"]])
def test_equal_values_are_sent_once_and_come_in_order(bodies):
    gathers, key = Gathers(3), ("x", 1)
    assert gathers.add(key, 2, bodies[2], False) is None
    assert gathers.missing(key) == [0, 1] and gathers.waiting() == [key] and gathers.missing(("x", 2)) == [0, 1, 2]
    assert gathers.add(key, 0, bodies[0], False) is None
    header, body = gathers.add(key, 1, bodies[1], False)
    assert len(body) == sum(map(len, set(bodies))) and texts(header, body) == bodies
    assert gathers.waiting() == []


def test_only_the_value_of_rank_0_is_sent():
    gathers = Gathers(2)
    gathers.add(("x", 1), 1, b"not sent", True)
    assert texts(*gathers.add(("x", 1), 0, b"sent", True)) == [b"sent"]


def test_ranks_are_named_briefly():
    assert spans([0, 3, 4, 5, 9]) == "0, 3 to 5, 9"
    assert spans(range(0, 40, 2)) == "0, 2, 4, 6, 8, 10, 12, 14 and 12 more"
    endpoints = ["a:1", "a:2", "b:1", "b:2", "b:3", "[::1]:9"]
    assert name_ranks([1, 2, 3, 5], endpoints) == "rank(s) 1 (a), 2 to 3 (b), 5 (::1)"
    hosts = [f"10.0.0.{rank}:70" for rank in range(1000)]
    assert name_ranks(range(1000), hosts).endswith("4 (10.0.0.4) and those of 995 more machines")
    assert len(name_ranks(range(1000), hosts)) < 200
    assert host_of("[fe80::1]:80") == "fe80::1" and host_of("a:1") == "a"

"""Messages between ranks: a small JSON header and a body of bytes, preceded by a mark and their lengths."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_MARK = b"PLSC"
_PREFIX = struct.Struct("!4sIQ")  # mark, bytes of the header, bytes of the body


class NotAMessage(ValueError):
    """What was received is not a message of PLSC, or is longer than allowed."""


@dataclass(frozen=True)
class Limits:
    """The most bytes of a header and of a body."""

    header: int
    body: int


OF_STRANGER = Limits(4096, 0)  # until a connection has said which rank it is
OF_RANK = Limits(2**24, 2**30)


def encode(header: dict[str, Any], body: bytes = b"") -> list[bytes]:
    """The message as pieces to send one after the other; ``body`` is not copied.

    The header ends with a line, for which another program that is sent a message by mistake may wait before it answers.
    """
    text = json.dumps(header).encode() + b"\r\n"
    return [_PREFIX.pack(_MARK, len(text), len(body)) + text, *([body] if body else [])]


class Decoder:
    """Turns the bytes of a connection, in whatever pieces they come, into messages. ``limits`` may be changed."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        """(header, body) of each message that is complete. Raises NotAMessage."""
        self._buffer += data
        while len(self._buffer) >= _PREFIX.size:
            mark, header, body = _PREFIX.unpack_from(self._buffer)
            if mark != _MARK or header > self.limits.header or body > self.limits.body:
                raise NotAMessage
            end = _PREFIX.size + header + body
            if len(self._buffer) < end:
                return
            with memoryview(self._buffer) as view:
                text, rest = bytes(view[_PREFIX.size : _PREFIX.size + header]), bytes(view[end - body : end])
            del self._buffer[:end]
            yield _object(text), rest
        if not _MARK.startswith(bytes(self._buffer[:4])) and not self._buffer.startswith(_MARK):
            raise NotAMessage  # at once, not when as many bytes have come as a message has


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise NotAMessage from None
    if not isinstance(found, dict):
        raise NotAMessage
    return found

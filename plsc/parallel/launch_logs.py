"""Hides secrets in the launcher's log directory, where Paddle writes all environment variables, passwords included.

Every launch leaves them in ``log/``, readable by every user of the machine: in ``<job>.<pod>.log``, ``envlog.<rank>``
and ``backup_env.<rank>.json``. Paddle reads only the lists of endpoints back from them.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping

MAX_BYTES = 16 * 2**20
_FILES = re.compile(r"envlog(\.init)?\.\d+|backup_env\.\d+\.json|.+\.[a-z]{6}\.log")
_LOG_START = b"environ({"  # str(os.environ); a log file of another program starts differently
_NAMES = re.compile(r"KEY|SECRET|TOKEN|PASSW|PWD$|CREDENTIAL|AUTH|UGI|SIGNATURE|COOKIE", re.IGNORECASE)
_NOT_SECRET = ("PWD", "OLDPWD")  # the working directory
_IN_ADDRESSES = re.compile(r"://([^/@\s]+)@")  # http://user:password@proxy
_MIN_LENGTH = 4  # of a secret, in characters
_SETTING = re.compile(r"true|false|none|null|default|disabled|enabled|\d{1,7}", re.IGNORECASE)  # MAX_TOKENS=6170


def hide_secrets(more: Iterable[str | None] = (), environ: Mapping[str, str] | None = None) -> None:
    """Make those files private to this user and overwrite the secrets in them with asterisks.

    Every rank calls it first thing when it starts, so the last one finds the files of all ranks. more: secrets from
    other sources, such as a configuration. Files that cannot be opened are left unchanged.
    """
    environ = os.environ if environ is None else environ
    directory = environ.get("PADDLE_LOG_DIR")
    if not directory:
        return
    found = [*find_secrets(environ), *(text for text in more if text)]
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        if _FILES.fullmatch(name):
            try:
                _clean(os.path.join(directory, name), found)
            except OSError:
                continue  # another user's file, or deleted meanwhile


def find_secrets(environ: Mapping[str, str]) -> list[str]:
    """The values of variables with names such as PASSWORD or TOKEN, and "user:password" of URLs."""
    named = [value for name, value in environ.items() if _NAMES.search(name) and name not in _NOT_SECRET]
    return [*named, *(part for value in environ.values() for part in _IN_ADDRESSES.findall(value))]


def _clean(path: str, secrets: Iterable[str]) -> None:
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_size > MAX_BYTES:
            return
        if path.endswith(".log") and os.pread(handle, len(_LOG_START), 0) != _LOG_START:
            return
        os.fchmod(handle, 0o600)
        data = os.pread(handle, MAX_BYTES, 0)
        for start, length in _occurrences(data, secrets):  # in place: the launcher may be appending
            os.pwrite(handle, b"*" * length, start)
    finally:
        os.close(handle)


def _occurrences(data: bytes, secrets: Iterable[str]) -> Iterable[tuple[int, int]]:
    """(start, length) of each secret in the data, as plain text, as a Python literal and as JSON."""
    for secret in secrets:
        if len(secret) < _MIN_LENGTH or _SETTING.fullmatch(secret):
            continue
        forms = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]}
        for form in {text.encode("utf-8", "surrogateescape") for text in forms}:
            start = data.find(form)
            while start >= 0:
                yield start, len(form)
                start = data.find(form, start + len(form))

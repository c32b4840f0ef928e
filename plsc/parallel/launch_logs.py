"""What Paddle's launcher writes into its directory of logs: all variables of the environment, keys and passwords too.

Every launch leaves them in ``log/``, readable for every user of the machine: in ``<job>.<pod>.log``, in
``envlog.<rank>`` and in ``backup_env.<rank>.json``. Paddle reads them again for the lists of endpoints only.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping

MOST_BYTES = 16 * 2**20
_FILES = re.compile(r"envlog(\.init)?\.\d+|backup_env\.\d+\.json|.+\.[a-z]{6}\.log")
_LOG_BEGINS = b"environ({"  # str(os.environ); a log of the user's, nginx.access.log, begins otherwise
_NAMES = re.compile(r"KEY|SECRET|TOKEN|PASSW|PWD$|CREDENTIAL|AUTH|UGI|SIGNATURE|COOKIE", re.IGNORECASE)
_ORDINARY = ("PWD", "OLDPWD")  # the working directory
_IN_ADDRESSES = re.compile(r"://([^/@\s]+)@")  # http://user:password@proxy
_LEAST = 4  # characters of what is taken for a secret
_SETTING = re.compile(r"true|false|none|null|default|disabled|enabled|\d{1,7}", re.IGNORECASE)  # MAX_TOKENS=6170


def hide_secrets(more: Iterable[str | None] = (), environ: Mapping[str, str] | None = None) -> None:
    """Make those files this user's alone and write asterisks over secrets in them.

    Every rank does it when it starts, before it does anything else: so the last one finds what was written for all.
    more: secrets that come from elsewhere, such as a configuration. What cannot be opened stays as it is.
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
                continue  # another user's, or gone by now


def find_secrets(environ: Mapping[str, str]) -> list[str]:
    """The values of variables whose names tell of secrets, and users with passwords in addresses."""
    named = [value for name, value in environ.items() if _NAMES.search(name) and name not in _ORDINARY]
    return [*named, *(part for value in environ.values() for part in _IN_ADDRESSES.findall(value))]


def _clean(path: str, secrets: Iterable[str]) -> None:
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_size > MOST_BYTES:
            return
        if path.endswith(".log") and os.pread(handle, len(_LOG_BEGINS), 0) != _LOG_BEGINS:
            return
        os.fchmod(handle, 0o600)
        data = os.pread(handle, MOST_BYTES, 0)
        for start, length in _places(data, secrets):  # in place: the launcher may be writing at the end
            os.pwrite(handle, b"*" * length, start)
    finally:
        os.close(handle)


def _places(data: bytes, secrets: Iterable[str]) -> Iterable[tuple[int, int]]:
    """(start, length) of each secret in the data, as plain text, as Python and as JSON write it."""
    for secret in secrets:
        if len(secret) < _LEAST or _SETTING.fullmatch(secret):
            continue
        forms = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]}
        for form in {text.encode("utf-8", "surrogateescape") for text in forms}:
            start = data.find(form)
            while start >= 0:
                yield start, len(form)
                start = data.find(form, start + len(form))

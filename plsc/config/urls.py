"""Addresses of remote files: validation, and masking of secrets in them."""

from __future__ import annotations

import re

SCHEMES = ("hdfs", "s3", "file")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(.*)", re.DOTALL)
_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?")
_CREDENTIALS = re.compile(r"(://)\S*@")  # to the last @: a secret key may hold slashes
_QUERY = re.compile(r"(://[^\s?]*\?)[^\s'\"]+")  # signed addresses carry their signature there


def is_url(text: str) -> bool:
    """True for "s3://bucket/dir" and the like, False for a path of this machine."""
    return "://" in text


def masked(text: str) -> str:
    """A text that may be printed: user names, keys and signatures in its addresses are replaced by ***."""
    return _QUERY.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))


def problem(url: str) -> str | None:
    """The error in an address, without repeating it, or None."""
    match = _URL.fullmatch(url)
    if match is None or match.group(1) not in SCHEMES:
        return f"an address begins with one of {', '.join(scheme + '://' for scheme in SCHEMES)}"
    scheme, host, path = match.groups()
    if scheme == "file" and (host or not path.strip("/")):
        return "write file:///directory, with three slashes"
    if "@" in url or scheme != "file" and not _HOST.fullmatch(host) or scheme == "s3" and ":" in host:
        return f"after {scheme}:// comes the {'bucket' if scheme == 's3' else 'host'}, without user, key or password: "\
            "the key of S3 is read from AWS's own variables or files, that of HDFS from remote.fs_ugi"
    return path_problem(path)


def path_problem(path: str) -> str | None:
    """What is wrong with the path of an address or with a directory on HDFS, or None."""
    if any(character in path for character in "?#*[]{}\\\n"):
        return "the path must not hold any of ? # * [ ] { } \\"
    if ".." in path.split("/"):
        return "the path must not hold .."
    return None


def file_system_problem(name: str) -> str | None:
    """What is wrong with the name of a Hadoop file system, or None. Its scheme is Hadoop's business."""
    match = _URL.fullmatch(name)
    if match is None or not _HOST.fullmatch(match.group(2)) or match.group(3) not in ("", "/"):
        return "write scheme://host or scheme://host:port, as in hdfs://namenode:9000, without user or password"
    return None


def directory_problem(path: str) -> str | None:
    """What is wrong with a directory on the Hadoop file system, or None."""
    return path_problem(path) if path.startswith("/") and path.strip("/") else "write a directory that begins with /"


def start_problem(path: str) -> str | None:
    """What is wrong with the place of a checkpoint, a directory of this machine or an address; None if nothing."""
    return problem(path) if is_url(path) else None


def local_problem(path: str) -> str | None:
    """What is wrong with a directory that must be of this machine, or None."""
    return "must be a directory of this machine; the address to copy to is remote.save_url" if is_url(path) else None

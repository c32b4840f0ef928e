"""HDFS and Hadoop's other file systems, through the command `hadoop fs` (Hadoop 2 or later), as in PLSC 0.x.

Why not fsspec: its HDFS driver, pyarrow, loads libhdfs and a Java VM into the training process and accepts no password.
libhdfs comes from the same Hadoop installation as the command, and a failing command cannot end the training. User and
password (hadoop.job.ugi) are in a file that only this user can read, so they do not appear in the list of processes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from xml.sax.saxutils import escape

from plsc.config.urls import masked
from plsc.errors import ConfigError
from plsc.files.hashes import READ_BYTES, FileEntry, IncrementalHash

COMMAND_SECONDS = 3000  # a hanging command is killed before the other ranks time out (plsc.parallel.group)


class HadoopStore:
    """See plsc.remote.stores.Store. `fs_name` becomes fs.defaultFS, `fs_ugi` ("user,password") hadoop.job.ugi."""

    def __init__(self, url: str, fs_name: str | None, fs_ugi: str | None, seconds: float = COMMAND_SECONDS):
        self.url = url.rstrip("/")
        self._seconds = seconds
        self._settings = {"fs.defaultFS": fs_name, "fs.default.name": fs_name, "hadoop.job.ugi": fs_ugi}
        self._secrets = [] if fs_ugi is None else [fs_ugi, fs_ugi.partition(",")[2]]
        command = shutil.which("hadoop")
        if command is None:
            raise ConfigError(
                f"{self.url}: the command `hadoop` is not on the PATH; install and configure Hadoop's client, or copy "
                "the files yourself and set a local directory"
            )
        self._command = command

    def files(self) -> dict[str, int]:
        try:
            listing = self._run("-ls", "-R", self.url).decode(errors="surrogateescape")
        except FileNotFoundError:
            return {}
        found = {}
        for line in listing.splitlines():
            # permissions, replication, owner, group, bytes, date, time, path; "Found 3 items" has fewer fields
            fields = line.split(None, 7)
            if len(fields) == 8 and fields[0].startswith("-") and (name := self._relative(fields[7])):
                found[name] = int(fields[4])
        return found

    def read(self, name: str) -> bytes:
        return self._run("-cat", self._path(name))

    def write(self, name: str, data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="plsc_") as directory:
            local = os.path.join(directory, "data")
            with open(local, "wb") as file:
                file.write(data)
            self.put(local, name)

    def get(self, name: str, local: str) -> None:
        self._run("-get", self._path(name), local)

    def put(self, local: str, name: str) -> None:
        self._run("-mkdir", "-p", self._path(name).rpartition("/")[0])
        self._run("-put", "-f", local, self._path(name))

    def measure(self, name: str) -> FileEntry:
        digest = IncrementalHash()
        self._run("-cat", self._path(name), on_block=digest.add)
        return digest.entry()

    def delete(self, name: str) -> None:
        self._run("-rm", "-f", "-skipTrash", self._path(name))

    def redact(self, text: str) -> str:
        for secret in filter(None, self._secrets):
            text = text.replace(secret, "***")
        return masked(text)

    def _path(self, name: str) -> str:
        return f"{self.url}/{name}"

    def _relative(self, listed: str) -> str:
        """The name of a listed file. Hadoop lists full addresses, or paths on its default file system."""
        root = "/" + self.url.partition("://")[2].partition("/")[2]
        path = "/" + listed.partition("://")[2].partition("/")[2] if "://" in listed else listed
        start = root.rstrip("/") + "/"
        return path[len(start) :] if path.startswith(start) else ""

    def _run(self, *arguments: str, on_block: Callable[[bytes], None] | None = None) -> bytes:
        """Run a command and return its output; with `on_block` the output is passed to it in blocks instead.

        Raises OSError with the command's error message, without secrets.
        """
        printed = bytearray()
        with self._configuration() as path, tempfile.TemporaryFile() as errors:
            command = [self._command, "fs", *(["-conf", path] if path else []), *arguments]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
            assert process.stdout is not None  # stdout=PIPE
            timer = threading.Timer(self._seconds, _kill, [process])
            timer.start()
            try:
                while block := process.stdout.read(READ_BYTES):
                    printed.extend(block) if on_block is None else on_block(block)
                status = process.wait()
            finally:
                timer.cancel()
                _kill(process)  # if reading was interrupted
                process.stdout.close()
                process.wait()
            errors.seek(0)
            reason = self.redact(_last_line(errors.read().decode(errors="replace")))
        if status == 0:
            return bytes(printed)
        if status < 0:
            reason = f"killed, after the limit of {self._seconds:g} s or by another process; {reason}"
        text = f"hadoop fs {arguments[0]}: exit status {status}: {reason}"
        if "No such file or directory" in reason:
            raise FileNotFoundError(text)
        raise PermissionError(text) if "ermission denied" in reason else OSError(text)

    @contextmanager
    def _configuration(self) -> Iterator[str | None]:
        """A temporary file of Hadoop settings that only this user can read."""
        given = {name: value for name, value in self._settings.items() if value is not None}
        if not given:
            yield None
            return
        with tempfile.NamedTemporaryFile("w", prefix="plsc_", suffix=".xml", encoding="utf-8") as file:
            file.write('<?xml version="1.0"?>\n<configuration>\n')
            for name, value in given.items():
                file.write(f"<property><name>{name}</name><value>{escape(value)}</value></property>\n")
            file.write("</configuration>\n")
            file.flush()
            yield file.name


def _kill(process: subprocess.Popen) -> None:
    """Kill a command that still runs, with its child processes."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _last_line(text: str) -> str:
    """The last line that is not part of a Java stack trace or of the log: the reason of the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("\t", " "))]
    telling = [line for line in lines if " WARN " not in line and " INFO " not in line]
    return (telling or lines or ["no reason given"])[-1][:300]

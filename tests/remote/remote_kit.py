"""What the tests of copies share: runs of one and of several ranks, a `hadoop` that is a directory, an S3 server."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import urllib.request
from pathlib import Path

from plsc.checkpoint import SHARED, OneRank
from plsc.config import Config
from plsc.parallel.environment import Environment
from tests.checkpoint.checkpoint_kit import on_ranks


@contextlib.contextmanager
def s3_server():
    """The address of an S3 server in this process, with nothing in it.

    moto keeps the buckets of a process in one place, whichever of its servers they were made by: what one test leaves
    there another would find.
    """
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        without_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        without_proxies.open(urllib.request.Request(f"{address}/moto-api/reset", method="POST"), timeout=60).close()
        yield address
    finally:
        server.stop()


class RunLog:
    def __init__(self):
        self.lines = []

    def info(self, text):
        self.lines.append(text)


class FakeRun:
    """One rank of a run whose `model_save_dir` is `directory`; `machines`[rank] is the machine of each rank."""

    def __init__(self, directory, settings=None, group=None, machines=None, places=SHARED):
        self.group, self.places = group or OneRank(), places
        self.config = Config.from_dict({"model_save_dir": str(directory), **(settings or {})})
        rank, machines = self.group.rank, machines or [0] * self.group.world_size
        local = [r for r, machine in enumerate(machines) if machine == machines[rank]]
        self.env = Environment(rank, self.group.world_size, local.index(rank), len(local))
        self.log = RunLog()


def on_runs(directories, settings, work, machines=None, places=SHARED):
    """[work(run) of each rank], the ranks being threads; rank r works in directories[r]."""

    def start(group):
        return work(FakeRun(directories[group.rank], settings, group, machines, places))

    return on_ranks(len(directories), start)


def raise_first(results):
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def tree(directory) -> dict[str, bytes]:
    """{path: bytes} of every file below a directory."""
    root = Path(directory)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


HADOOP = """#!{python}
import json, os, shutil, sys
from xml.etree import ElementTree

DISK, LOG = {disk!r}, {log!r}
arguments = sys.argv[1:]
assert arguments.pop(0) == "fs"
settings = {{}}
if arguments[0] == "-conf":
    for entry in ElementTree.parse(arguments[1]).getroot():
        settings[entry.find("name").text] = entry.find("value").text
    settings["mode"] = oct(os.stat(arguments[1]).st_mode & 0o777)
    arguments = arguments[2:]
with open(LOG, "a") as file:
    file.write(json.dumps([sys.argv[1:], settings]) + "\\n")
{extra}

def fail(text):
    print("24/01/01 10:00:00 WARN util.NativeCodeLoader: Unable to load", text, "\\tat java.X(X.java)",
        sep="\\n", file=sys.stderr)
    sys.exit(1)

def local(url):
    scheme, rest = url.split("://")
    return os.path.join(DISK, rest)

command, flags = arguments[0], [a for a in arguments[1:] if a.startswith("-")]
paths = [a for a in arguments[1:] if not a.startswith("-")]
remote = local(paths[1] if command == "-put" else paths[0])
if command in ("-ls", "-cat", "-get") and not os.path.exists(remote):
    fail(command[1:] + ": `" + paths[0] + "': No such file or directory")
if command == "-ls":
    assert flags == ["-R"]
    for place, directories, names in os.walk(remote):
        for name in directories + names:
            path = os.path.join(place, name)
            kind = "d" if os.path.isdir(path) else "-"
            size = 0 if kind == "d" else os.path.getsize(path)
            shown = paths[0].split("://")[0] + "://" + os.path.relpath(path, DISK)
            print(kind + "rw-r--r--   3 me group", size, "2024-01-01 10:00", shown)
elif command == "-cat":
    with open(remote, "rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)
elif command == "-get":
    if os.path.exists(paths[1]):
        fail("get: `" + paths[1] + "': File exists")
    shutil.copyfile(remote, paths[1])
elif command == "-mkdir":
    assert flags == ["-p"]
    os.makedirs(remote, exist_ok=True)
elif command == "-put":
    assert flags == ["-f"]
    shutil.copyfile(paths[0], remote)
elif command == "-rm":
    assert flags == ["-f", "-skipTrash"]
    if os.path.exists(remote):
        os.remove(remote)
else:
    fail("Unknown command " + command)
"""


def install_hadoop(monkeypatch, tmp_path, extra="pass") -> tuple[Path, Path]:
    """Put a command `hadoop` on the PATH that keeps hdfs://host/x in disk/host/x; returns (disk, log of its calls).

    `extra`: Python that it runs first, such as a failure.
    """
    disk, log, place = tmp_path / "hdfs", tmp_path / "hadoop.log", tmp_path / "bin"
    disk.mkdir(exist_ok=True)
    place.mkdir(exist_ok=True)
    command = place / "hadoop"
    command.write_text(HADOOP.format(python=sys.executable, disk=str(disk), log=str(log), extra=extra))
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return disk, log

"""A library is compiled once for all that it depends on, by one process at a time, where nobody else can write."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from plsc.backend import compiler
from plsc.backend.compiler import CompileError
from plsc.files.private_directory import open_directory

ROOT = Path(__file__).resolve().parents[2]
SMALL = 'extern "C" int answer() { return 42; }\n'


def compiled_library(*arguments):
    """The path of the library; it is opened as well."""
    library = compiler.compiled_library(*arguments)
    assert os.path.samefile(library.load_path, library.path)
    os.close(library.handle)
    return library.path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A small source, a cache of its own, and a compiler that writes down each of its calls."""
    (tmp_path / "small.cc").write_text(SMALL)
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec g++ "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def calls(place):
    lines = (place / "calls").read_text().splitlines()
    return [line for line in lines if line != "--version"]


def test_it_is_compiled_once(place):
    first = compiled_library(place / "small.cc")
    assert first.read_bytes()[:4] == b"\x7fELF" and len(calls(place)) == 2  # compiled, linked
    assert compiled_library(place / "small.cc") == first and len(calls(place)) == 2
    assert {path.suffix for path in first.parent.iterdir()} == {".so"}
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700


def test_it_brings_no_threads_of_its_own(place):
    """Two OpenMP libraries in a process would let their threads wait for each other's cores."""
    wrapper = place / "wrapper"  # some compilers name every library that they are given, others those that are needed
    wrapper.write_text(wrapper.read_text().replace("exec g++", "exec g++ -Wl,--no-as-needed"))
    (place / "small.cc").write_text(SMALL + "void f(int* x) {\n#pragma omp parallel\nx[0] = 1;\n}\n")
    command = ["readelf", "-d", compiled_library(place / "small.cc")]
    needed = subprocess.run(command, capture_output=True, text=True).stdout
    assert "libiomp5.so" in needed and "libgomp" not in needed


def test_another_source_processor_or_compiler_is_another_library(place, monkeypatch):
    source, cpuinfo = place / "small.cc", place / "cpuinfo"
    cpuinfo.write_text("flags : avx2\n")
    found = [compiled_library(source), compiled_library(source, cpuinfo)]
    cpuinfo.write_text("flags : avx512f\n")
    found.append(compiled_library(source, cpuinfo))
    monkeypatch.setenv("CXX", f"{place / 'wrapper'} -g0")
    found.append(compiled_library(source))
    source.write_text(SMALL.replace("42", "43"))
    found.append(compiled_library(source))
    assert len(set(found)) == 5 and all(path.exists() for path in found)


def elsewhere(place):
    """A process that wants the library."""
    source = str(place / "small.cc")
    code = f"import pathlib, plsc.backend.compiler as c; print(c.compiled_library(pathlib.Path({source!r})).path)"
    command, environment = [sys.executable, "-W", "ignore", "-c", code], {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_processes_that_start_together_compile_it_once(place):
    started = [elsewhere(place) for _ in range(4)]
    said = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4 and len(said) == 1
    assert len(calls(place)) == 2


@pytest.mark.parametrize("stage", ["-c", "-shared"])
def test_one_that_was_killed_leaves_nothing_that_is_taken_for_a_library(place, stage):
    wrapper = place / "wrapper"
    usual = wrapper.read_text()
    # it is killed when half of what this stage makes is written
    wrapper.write_text(f"""#!/bin/sh
case " $* " in *" {stage} "*) g++ "$@"; for word; do [ "$last" = -o ] && echo half > "$word"; last=$word; done
kill -9 $PPID;; esac
exec g++ "$@"
""")
    process = elsewhere(place)
    process.communicate()
    assert process.returncode == -9 and list((place / "cache" / "plsc").glob("*.so")) == []
    wrapper.write_text(usual)
    assert compiled_library(place / "small.cc").exists()


def test_without_a_compiler_it_says_what_to_install(place, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CompileError, match="compiler 'no-such-compiler' not found.*apt-get install g"):
        compiled_library(place / "small.cc")


def test_a_compiler_that_cannot_be_called_is_told(place, monkeypatch):
    (place / "wrapper").write_text("\0")
    with pytest.raises(CompileError, match="wrapper cannot be run: Exec format error"):
        compiled_library(place / "small.cc")
    monkeypatch.setenv("CXX", "g++ 'x")
    with pytest.raises(CompileError, match="CXX=.* cannot be parsed: No closing quotation"):
        compiled_library(place / "small.cc")


def test_words_of_a_compiler_that_are_no_text_are_told_all_the_same(place):
    (place / "wrapper").write_text('#!/bin/sh\nprintf "x: error: \\351\\n" >&2\nexit 3\n')
    with pytest.raises(CompileError, match="wrapper ended with status 3: x: error: \ufffd"):
        compiled_library(place / "small.cc")


def test_an_error_of_the_compiler_is_told(place):
    (place / "small.cc").write_text("int answer() { return nothing; }\n")
    with pytest.raises(CompileError, match="wrapper ended with status 1: .*nothing.* was not declared"):
        compiled_library(place / "small.cc")
    assert list((place / "cache" / "plsc").glob("*.so")) == []


def test_a_compiler_that_hangs_is_ended(place, monkeypatch):
    (place / "wrapper").write_text('#!/bin/sh\n[ "$1" = --version ] && exec g++ --version\nexec sleep 60\n')
    monkeypatch.setattr(compiler, "TIMEOUT_SECONDS", 0.5)
    with pytest.raises(CompileError, match="took more than 0.5 s"):
        compiled_library(place / "small.cc")


def test_a_paddle_without_its_threads_is_told(place, monkeypatch):
    monkeypatch.setattr(compiler, "OPENMP", "libnone.so")
    with pytest.raises(CompileError, match="this Paddle has no libnone.so"):
        compiled_library(place / "small.cc")


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_cache_that_others_can_write_to_is_not_used(place, mode):
    cache = place / "cache" / "plsc"
    cache.mkdir(parents=True)
    cache.chmod(mode)
    with pytest.raises(CompileError, match="must be owned by you"):
        compiled_library(place / "small.cc")


def test_a_library_that_others_can_write_to_is_not_used(place):
    library = compiled_library(place / "small.cc")
    assert compiled_library(place / "small.cc") == library
    library.chmod(0o720)
    with pytest.raises(CompileError, match=f"{library.name} must be owned by you"):
        compiled_library(place / "small.cc")
    library.rename(place / "elsewhere")
    library.symlink_to(place / "elsewhere")  # the link's own rights are those of everybody
    with pytest.raises(CompileError, match="must be owned by you"):
        compiled_library(place / "small.cc")


def test_a_cache_that_can_only_be_read_is_used(place):
    library = compiled_library(place / "small.cc")
    library.with_suffix(".lock").mkdir()  # cannot be opened, also by root
    assert compiled_library(place / "small.cc") == library


def test_without_a_home_nothing_is_made_here(place, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")
    with pytest.raises(CompileError, match="is not absolute"):
        compiled_library(place / "small.cc")


def test_a_processor_or_source_that_cannot_be_read_is_told(place):
    with pytest.raises(CompileError, match="none: No such file"):
        compiled_library(place / "small.cc", place / "none")
    with pytest.raises(CompileError, match="none.cc: No such file"):
        compiled_library(place / "none.cc")


def test_a_cache_that_cannot_be_made_is_told(place):
    (place / "cache").write_text("in the way")
    with pytest.raises(CompileError, match="the cache cannot be used .*XDG_CACHE_HOME"):
        compiled_library(place / "small.cc")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_above_that_others_can_write_to_is_not_passed(place, mode, monkeypatch):
    """Who can write there puts another cache in place of ours."""
    above = place / "above"
    (above / "below").mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(above / "below" / "cache"))
    above.chmod(mode)
    with pytest.raises(CompileError, match=f"{above} must be owned by you"):
        compiled_library(place / "small.cc")
    assert list((above / "below").iterdir()) == []  # nothing is made there either
    above.chmod(0o755)
    assert compiled_library(place / "small.cc").parent == above / "below" / "cache" / "plsc"


def test_above_it_the_sticky_bit_is_enough(place, monkeypatch):
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    assert compiled_library(place / "small.cc").parent == shared / "plsc"
    (shared / "plsc").chmod(0o1777)  # in the cache itself others could add a lock, or wait for one
    with pytest.raises(CompileError, match="plsc must be owned by you"):
        compiled_library(place / "small.cc")


def test_a_directory_of_somebody_else_is_not_passed(place, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 12345)  # all of it is now another user's
    with pytest.raises(CompileError, match="must be owned by you"):
        compiled_library(place / "small.cc")


def test_a_link_to_the_cache_is_followed_and_what_it_leads_to_looked_at(place):
    real = place / "real"
    real.mkdir()
    (place / "cache").symlink_to(real)
    assert compiled_library(place / "small.cc").parent == real / "plsc"
    real.chmod(0o777)
    with pytest.raises(CompileError, match="real must be owned by you"):
        compiled_library(place / "small.cc")


def test_links_are_not_followed_on_the_way(tmp_path):
    """The path comes without any; one that is there now was put there since."""
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for path in ("link", "link/below"):
        with pytest.raises(OSError), open_directory(tmp_path / path):
            pass


def test_an_exchange_after_looking_changes_nothing(place):
    """The directory is renamed and another put in its place while the library is compiled."""
    cache, moved = place / "cache", place / "moved"
    wrapper = place / "wrapper"
    wrapper.write_text(wrapper.read_text().replace("exec g++", f"""case " $* " in *" -c "*)
mv {cache} {moved}; mkdir -p {cache}/plsc; for name in {moved}/plsc/*.lock; do
echo evil > {cache}/plsc/$(basename $name .lock).so; done;; esac
exec g++"""))
    library = compiler.compiled_library(place / "small.cc")
    assert Path(library.load_path).read_bytes()[:4] == b"\x7fELF"
    assert os.path.samefile(library.load_path, moved / "plsc" / library.path.name)
    os.close(library.handle)


def test_what_is_opened_stays_what_is_loaded(place):
    library = compiler.compiled_library(place / "small.cc")
    before = Path(library.load_path).read_bytes()
    library.path.unlink()
    library.path.write_bytes(b"another")
    assert Path(library.load_path).read_bytes() == before
    os.close(library.handle)


def test_a_directory_leaves_no_handle_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    (tmp_path / "a").mkdir()
    with open_directory(tmp_path / "a" / "b") as directory:
        assert directory.open_file("none") is None
        (tmp_path / "a" / "b" / "pipe").mkdir()
        with pytest.raises(PermissionError, match="pipe must be owned by you"):
            directory.open_file("pipe")
    (tmp_path / "a").chmod(0o777)
    with pytest.raises(PermissionError), open_directory(tmp_path / "a" / "b"):
        pass
    assert os.listdir("/proc/self/fd") == before

"""Starting the project's own processes from a script, reading their ports and what they cost (Linux)."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
READY = re.compile(rb"^(\S+) listening on http://([0-9A-Za-z.:\[\]]+):([0-9]+)\r?$", re.MULTILINE)
START_SECONDS = 15.0  # for every listener to say that it is ready
STOP_SECONDS = 15.0  # from SIGTERM to the end, then it is killed
POLL_SECONDS = 0.005
_TICK = os.sysconf("SC_CLK_TCK")

if sys.version_info < (3, 11):
    sys.exit(f"{Path(sys.argv[0]).name}: needs Python 3.11 or later, this is {sys.version.split()[0]}")


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and exit with its status; 141 where the reader of its output leaves (`| head`), 130 on Ctrl-C."""
    try:
        try:
            code = main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more at its end
        code = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)


class NotStarted(Exception):
    """A process ended, or stayed silent, before its listeners were ready; says what it printed."""


class Launched:
    """A running process whose listeners are ready; `listeners` are their (role, port) in the order of announcement.

    A context manager: leaving it stops the process. What it prints on standard error is in `log()`, on standard
    output in `output()`. `core` pins it (and its children) to one processor.
    """

    def __init__(
        self, command: list[str], listeners: int = 1, core: int | None = None, env: dict[str, str] | None = None
    ) -> None:
        self._files = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        before = os.sched_getaffinity(0)
        if core is not None:
            os.sched_setaffinity(0, {core})  # inherited by the child, from its first instruction on
        try:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                stdout=self._files[0], stderr=self._files[1], start_new_session=True,
            )  # fmt: skip
        finally:
            os.sched_setaffinity(0, before)
        self.pid = self._process.pid
        self.listeners = self._wait_for_listeners(command, listeners)

    @property
    def port(self) -> int:
        return self.listeners[0][1]

    def port_of(self, role: str) -> int:
        return dict(self.listeners)[role]

    def _wait_for_listeners(self, command: list[str], listeners: int) -> list[tuple[str, int]]:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            ready = READY.findall(self._read(1))
            if len(ready) >= listeners:
                return [(role.decode(), int(port)) for role, _, port in ready]
            time.sleep(POLL_SECONDS)
        said = self.log().strip() or "nothing"
        self.stop()
        raise NotStarted(f"{' '.join(command[1:])} did not start ({self._process.returncode}); it said: {said}")

    def _read(self, which: int) -> bytes:
        file = self._files[which]
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)

    def output(self) -> str:
        return self._read(0).decode("utf-8", "replace")

    def log(self) -> str:
        return self._read(1).decode("utf-8", "replace")

    def stop(self) -> int:
        """SIGTERM, wait, kill; the exit status (negative where a signal ended it)."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def reactor_command(*arguments: object) -> list[str]:
    """The command line of `python -m reactor.run`, for a process whose directory is the project's."""
    return [sys.executable, "-m", "reactor.run", *map(str, arguments)]


def reactor_client(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the client role to its end; its output is text."""
    return subprocess.run(
        reactor_command("--role", "client", *arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )


def reactor(*arguments: object, listeners: int = 1, core: int | None = None, env: dict[str, str] | None = None) -> Launched:
    return Launched(reactor_command(*arguments), listeners, core, env)


def two_cores() -> tuple[int, int] | None:
    """The cores for the server and for the load; None where there is one only."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else None


def raise_descriptor_limit() -> int:
    """As many descriptors as the hard limit allows, for this process and what it starts."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        try:
            todo += map(int, Path(f"/proc/{found[-1]}/task/{found[-1]}/children").read_text().split())
        except OSError:
            pass  # ended meanwhile
    return found


def cpu_seconds(pid: int) -> tuple[float, float]:
    """Processor time of a process and its descendants so far, and the kernel's part of it (sampled by tick: coarse)."""
    total = kernel = 0.0
    for member in family(pid):
        try:
            ticks = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        kernel += int(ticks[12]) / _TICK
        try:  # nanoseconds, where the kernel keeps them
            total += int(Path(f"/proc/{member}/schedstat").read_text().split()[0]) / 1e9
        except OSError:
            total += (int(ticks[11]) + int(ticks[12])) / _TICK
    return total, kernel


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, and the memory files that it holds open (they are in no mapping of its own)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    total = pages * os.sysconf("SC_PAGE_SIZE")
    seen = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(entry.path).startswith("/memfd:"):
                status = os.stat(entry.path)
                if status.st_ino not in seen:
                    seen.add(status.st_ino)
                    total += status.st_blocks * 512
        except OSError:
            pass  # closed meanwhile
    return total

"""Runs the tests in as many pytest processes as there are processors, for `scripts/test`.

    share_tests.py [FOLDER]        # tests, where none is named

The files are dealt into shares of like size, and whichever process is free takes the next share. What each prints is shown
whole, in order; what failed is named once more at the end. Exit status: 0 where every share passed, 1 where one did not,
130 when interrupted: then those that run are interrupted too, and killed with what they started on a second interrupt.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PROCESSES = min(4, len(os.sched_getaffinity(0)))
SHARES_EACH = 4  # so that no process is idle for long at the end; each share costs a start of pytest's
LOOK_SECONDS = 0.05  # between looks at who has ended
# No cache: the last share to end would overwrite the others' failures.
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--color={'yes' if sys.stdout.isatty() else 'no'}"]
FAULT = re.compile(r"(?:\x1b\[[0-9;]*m)*(?:FAILED|ERROR)(?:\x1b\[[0-9;]*m)* \S")


def deal(files: list[Path], number: int) -> list[list[Path]]:
    """Shares of like size: the largest file first, each to the share that has the least."""
    shares: list[list[Path]] = [[] for _ in range(min(number, len(files)))]
    sizes = [0] * len(shares)
    for file in sorted(files, key=lambda file: (-file.stat().st_size, file)):
        least = sizes.index(min(sizes))
        shares[least].append(file)
        sizes[least] += file.stat().st_size
    return shares


class Share:
    """Some files in a process of their own; out of the terminal's reach, so that an interrupt comes once, from here."""

    def __init__(self, files: list[Path], compiled: str) -> None:
        self.files = sorted(files)
        self.output = tempfile.TemporaryFile()
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.process = subprocess.Popen(
            [*PYTEST, *self.files], stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
            start_new_session=True, env={**environment, "PYTHONPYCACHEPREFIX": compiled},
        )  # fmt: skip

    def text(self) -> str:
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)


def run(files: list[list[Path]], compiled: str) -> Iterator[Share]:
    """The shares that have ended, in order; what runs when nobody wants more is interrupted.

    `compiled` is a folder where all of them, and what their tests start, find what one of them has compiled.
    """
    shares: list[Share] = []
    shown = 0
    try:
        while shown < len(files):
            running = sum(share.process.poll() is None for share in shares)
            shares += [Share(one, compiled) for one in files[len(shares) :][: PROCESSES - running]]
            while shown < len(shares) and shares[shown].process.poll() is not None:
                yield shares[shown]
                shown += 1
            time.sleep(LOOK_SECONDS)
    finally:
        end(shares[shown:])


def end(shares: list[Share]) -> None:
    """Interrupt: pytest then ends what its tests have started."""
    for share in shares:
        if share.process.poll() is None:
            share.process.send_signal(signal.SIGINT)
    try:
        for share in shares:
            share.process.wait()
            print(share.text(), flush=True)
    finally:
        for share in shares:
            share.kill()


def counted(lines: list[str]) -> dict[str, int]:
    """What pytest's last line says: `3 passed, 1 error in 0.5s`."""
    found = re.findall(r"(\d+) ((?:passed|failed|error|skipped|xfailed|xpassed|deselected|warning))", lines[-1] if lines else "")
    return {word: int(number) for number, word in found}


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(sys.argv[1] if sys.argv[1:] else "tests")
    start = time.monotonic()
    counts: Counter[str] = Counter()
    faults: list[str] = []
    files = deal(list(folder.rglob("test_*.py")), PROCESSES * SHARES_EACH)
    try:
        with tempfile.TemporaryDirectory(prefix="tests-compiled-") as compiled:
            for share in run(files, compiled):
                lines = share.text().splitlines()
                print(*lines, sep="\n", flush=True)
                counts.update(counted(lines))
                faults += filter(FAULT.match, lines)
                if status := share.process.returncode:
                    faults.append(f"exit status {status}: pytest {' '.join(map(str, share.files))}")
    except KeyboardInterrupt:
        print("scripts/test: interrupted", file=sys.stderr)
        return 130
    print(*faults, sep="\n")
    told = ", ".join(f"{number:,} {word}" for word, number in counts.items())
    print(f"{told} in {time.monotonic() - start:.0f} s, {len(files)} shares, {PROCESSES} at a time")
    return 1 if faults or not files else 0


if __name__ == "__main__":
    sys.exit(main())

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

    def __init__(self, files: list[Path]) -> None:
        self.files = sorted(files)
        self.output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [*PYTEST, *self.files], stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output, start_new_session=True
        )

    def text(self) -> str:
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)


def run(files: list[list[Path]]) -> Iterator[Share]:
    """The shares that have ended, in order; what runs when nobody wants more is interrupted."""
    shares: list[Share] = []
    shown = 0
    try:
        while shown < len(files):
            running = sum(share.process.poll() is None for share in shares)
            shares += map(Share, files[len(shares) :][: PROCESSES - running])
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
    found = re.findall(r"(\d+) (passed|failed|error|skipped|xfailed|xpassed|warning)", lines[-1] if lines else "")
    return {word: int(number) for number, word in found}


def faults_of(share: Share, lines: list[str]) -> list[str]:
    """The lines that name what failed; or how the process ended, where it says nothing."""
    files, status = " ".join(map(str, share.files)), share.process.returncode
    faults = list(filter(FAULT.match, lines))
    if not faults and (status or not counted(lines)):
        faults.append(f"FAILED with exit status {status}: pytest {files}")
    return faults


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell's background jobs would ignore the first
        signal.signal(number, signal.default_int_handler)
    folder = Path(sys.argv[1] if sys.argv[1:] else "tests")
    start = time.monotonic()
    counts: Counter[str] = Counter()
    faults: list[str] = []
    files = deal(list(folder.rglob("test_*.py")), PROCESSES * SHARES_EACH)
    try:
        for share in run(files):
            lines = share.text().splitlines()
            print(*lines, sep="\n", flush=True)
            counts.update(counted(lines))
            faults += faults_of(share, lines)
    except KeyboardInterrupt:
        print("scripts/test: interrupted", file=sys.stderr)
        return 130
    if faults:
        print(*faults, sep="\n")
    told = ", ".join(f"{number:,} {word}" for word, number in counts.items()) or "no tests"
    print(f"{told} in {time.monotonic() - start:.0f} s, {len(files)} shares, {PROCESSES} at a time")
    return 1 if faults or not files else 0


if __name__ == "__main__":
    sys.exit(main())

"""scripts/share_tests.py: every file once, what failed named at the end, and nothing left running."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "share_tests.py"
GOOD = "import pytest\n@pytest.mark.parametrize('n', range(2))\ndef test_good(n): pass\n"
HANGING = """
import os, pytest, signal

@pytest.fixture
def thing():
    yield
    open("ended", "w").close()

def test_it(thing):
    open("begun", "w").close()
    signal.pause()
"""


def start(folder: Path, **files: str) -> subprocess.Popen[str]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return subprocess.Popen(
        [sys.executable, SCRIPT, "."], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip


def test_every_file_is_dealt_once_and_the_shares_are_alike(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("share_tests", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files = [tmp_path / f"test_{size}.py" for size in (10, 70, 50, 40, 20)]
    for file in files:
        file.write_bytes(b"#" * int(file.stem[5:]))
    dealt = [[file.stem for file in share] for share in module.deal(files, 2)]
    assert dealt == [["test_70", "test_20", "test_10"], ["test_50", "test_40"]]
    assert sorted(sum(module.deal(files, 9), [])) == sorted(files)


def test_all_pass(tmp_path: Path) -> None:
    out, err = (process := start(tmp_path, test_a=GOOD, test_b=GOOD)).communicate()
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1].startswith("4 passed in ")


def test_what_failed_is_named_last(tmp_path: Path) -> None:
    process = start(tmp_path, test_a=GOOD, test_b="def test_bad(): assert 1 == 2\n", test_c="nothing\n")
    *_, one, other, last = process.communicate()[0].splitlines()
    assert process.returncode == 1
    assert {one, other} == {
        "FAILED test_b.py::test_bad - assert 1 == 2", "ERROR test_c.py - NameError: name 'nothing' is not defined"
    }  # fmt: skip
    assert last.startswith("2 passed, 1 failed, 1 error in ") or last.startswith("2 passed, 1 error, 1 failed in ")


@pytest.mark.parametrize(
    ("text", "status"),
    [("import os\ndef test_it(): os._exit(0)\n", 0), ("import os\ndef test_it(): os.abort()\n", -6), ("", 5)],
)
def test_a_share_that_says_nothing_has_failed(tmp_path: Path, text: str, status: int) -> None:
    process = start(tmp_path, test_a=text)
    *_, fault, last = process.communicate()[0].splitlines()
    assert (process.returncode, fault) == (1, f"FAILED with exit status {status}: pytest test_a.py")
    assert last.startswith("no tests in ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_all(tmp_path: Path, number: int) -> None:
    os.mkfifo(tmp_path / "begun")
    process = start(tmp_path, test_hanging=HANGING)
    (tmp_path / "begun").read_bytes()  # waits for the test to open it
    process.send_signal(number)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, "scripts/test: interrupted\n")
    assert (tmp_path / "ended").exists(), "the test took down what it had set up"

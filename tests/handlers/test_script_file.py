"""The file of a script: edits, and what is said of a broken one."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.script_file import ScriptFile
from reactor.errors import ConfigError
from tests.handlers.asking import ask
from tests.handlers.scripting import GET, Make, get, scripts_in, served
from tests.loopback import Handling, House, housed


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def script(tmp_path: Path) -> Make:
    return scripts_in(tmp_path)


@pytest.fixture(autouse=True)
def errors_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


def edit(path: Path, text: str) -> None:
    path.write_text(text)
    seen = path.stat()
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns + 1))  # as time passes between edits


def test_an_edit_is_in_force_within_a_second_of_traffic(house: House, script: Make, tmp_path: Path) -> None:
    listener, _ = served(house, script, "def request(exchange): exchange.answer(200, 'one')")
    peer = listener.connect()
    assert get(peer).body == b"one"
    edit(tmp_path / "filter.py", "def request(exchange): exchange.answer(200, 'two')")
    assert get(peer).body == b"one", "it is not looked at for every request"
    house.pass_time(1.0)
    assert get(peer).body == b"two"


def test_a_file_is_looked_at_once_a_second_at_most(house: House, script: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    listener, _ = served(house, script, "")
    looks: list[str] = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: looks.append(str(path)) or stat(path, **more))
    peer = listener.connect()
    for _ in range(3):
        for _ in range(5):
            get(peer)
        house.pass_time(1.0)
    assert sum(look.endswith("filter.py") for look in looks) == 3


BROKEN = {
    "def request(:": "line 1: SyntaxError: invalid syntax",
    "x = 1\n\n1 / 0": "line 3: ZeroDivisionError: division by zero",
    "def f():\n    raise KeyError('x')\nf()": "line 2: KeyError: 'x'",
    "import nowhere_at_all": "line 1: ModuleNotFoundError: No module named 'nowhere_at_all'",
    "raise SystemExit(3)": "line 1: SystemExit: 3",
    "request = 5": "TypeError: request is no function",
    "def request(): ...": "TypeError: request must be callable with one argument, the exchange",
    "async def response(exchange, flow): ...": "TypeError: response must be callable with one argument, the exchange",
    "x = '\0'": "source code string cannot contain null bytes",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_edit_leaves_the_old_one_in_force_and_says_so(
    house: House, script: Make, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    listener, _ = served(house, script, "def request(exchange): exchange.answer(200, 'one')")
    peer = listener.connect()
    edit(tmp_path / "filter.py", text)
    for _ in range(3):
        assert get(peer).body == b"one"
        house.pass_time(1.0)
    assert len(caplog.records) == 1, "said once"
    assert BROKEN[text] in caplog.text and "the one read before stays in force" in caplog.text
    edit(tmp_path / "filter.py", "def request(exchange): exchange.answer(200, 'mended')")
    assert get(peer).body == b"mended"
    assert "read again, and in force" in caplog.text


def test_a_file_that_goes_away_leaves_its_hooks(
    house: House, script: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener, _ = served(house, script, "def request(exchange): exchange.answer(200, 'one')")
    peer = listener.connect()
    (tmp_path / "filter.py").unlink()
    for _ in range(3):
        assert get(peer).body == b"one"
        house.pass_time(1.0)
    assert [record.message for record in caplog.records] == [
        f"script {tmp_path}/filter.py: No such file or directory; the one read before stays in force"
    ]


def test_an_edit_under_traffic_leaves_what_runs_to_its_own_hooks(house: House, script: Make, tmp_path: Path) -> None:
    text = """
async def request(exchange):
    await exchange.delay(2)

def response(exchange):
    exchange.response.fields["V"] = "{}"
"""
    listener, _ = served(house, script, text.format(1))
    first, second = listener.connect(), listener.connect()
    first.send(GET)
    house.pass_time(1.0)
    edit(tmp_path / "filter.py", text.format(2))
    second.send(GET)
    house.turns()
    house.pass_time(2.0)
    assert (first.answer().fields[b"v"], second.answer().fields[b"v"]) == (b"1", b"2")


@pytest.mark.parametrize("text", BROKEN)
def test_at_the_start_a_broken_one_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "filter.py").write_text(text)
    with pytest.raises(ConfigError, match=f"script {tmp_path}/filter.py.*" + re.escape(BROKEN[text])) as caught:
        ScriptFile(str(tmp_path / "filter.py"))
    assert "\n" not in str(caught.value)


def test_one_without_a_hook_is_taken_and_said_to_do_nothing(script: Make, caplog: pytest.LogCaptureFixture) -> None:
    script("def requests(exchange): exchange.refuse('misspelt')", Handling())
    assert "filter.py: defines neither request(exchange) nor response(exchange)" in caplog.text


@pytest.mark.parametrize("path", ["", "nowhere.py"])
def test_a_file_that_is_not_there(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="script .*: (Is a directory|No such file or directory)"):
        ScriptFile(str(tmp_path / path))


def test_modules_beside_the_script_and_dataclasses(tmp_path: Path, script: Make) -> None:
    (tmp_path / "beside_the_filter.py").write_text("NAME = 'beside'")
    text = """
from __future__ import annotations
from dataclasses import dataclass
from beside_the_filter import NAME
from handlers.traffic import Traffic

@dataclass
class Said:
    what: str

def request(exchange: Traffic) -> None:
    exchange.answer(200, Said(NAME).what)
"""
    assert ask(script(text, Handling()), "GET /").content == b"beside"


@pytest.mark.parametrize("text", ["request = print", "request = lambda *all: None", "request = dict.fromkeys", "request = type"])
def test_whatever_takes_an_exchange_is_a_hook(script: Make, text: str) -> None:
    script(text, Handling())

"""The file of users: what is read from which text, and what the script writes that makes entries."""

from __future__ import annotations

import base64
import hashlib
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.passwords import answer
from handlers.users import parse_basic
from handlers.users_file import Entry, make_entry, parse_users_file
from reactor.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent
CHEAP = 4  # 2**4: scrypt at its fastest
ENTRY = make_entry("alice", "secret", CHEAP)


def test_an_entry_is_the_hash_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    (name, entry), *_ = parse_users_file(ENTRY).items()
    made = hashlib.scrypt(b"secret", salt=entry.salt, n=16, r=8, p=5, dklen=32)
    assert (name, entry.n, entry.r, entry.p, len(entry.salt), entry.digest) == ("alice", 16, 8, 5, 16, made)
    assert make_entry("alice", "secret", CHEAP) != ENTRY, "another salt"


@given(st.text(st.characters(exclude_characters=",:*#", exclude_categories=("Cc", "Zs", "Cs")), min_size=1, max_size=20))
def test_a_name_that_has_an_entry_can_be_read_and_sent(name: str) -> None:
    try:
        line = make_entry(name, "p:ä", 1)
    except ConfigError:
        return
    (found,) = parse_users_file(line)
    sent = parse_basic(b"Basic " + base64.b64encode(f"{name}:p:ä".encode()))
    assert sent is not None and sent[0] == found


def line_for(entry: Entry, password: bytes) -> bytes:
    octets = map(base64.b64encode, (entry.salt, entry.digest, password))
    return b"%d %d %d %b" % (entry.n, entry.r, entry.p, b" ".join(octets))


def test_what_the_helper_answers() -> None:
    entry = parse_users_file(ENTRY)["alice"]
    assert answer(line_for(entry, b"secret")) == b"yes"
    assert answer(line_for(entry, b"Secret")) == b"no"
    assert answer(line_for(entry, b"")) == b"no"


HASH = ENTRY.partition(":")[2]
SALT_AND_DIGEST = HASH.split(",p=5", 1)[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alice", "line 1, column 1: not of the form name:hash"),
        ("\n# x\n:x", "line 3, column 1: not of the form name:hash"),
        (f" alice:{HASH}", "line 1, column 1: not of the form"),
        (f"al ice:{HASH}", "line 1, column 1: not of the form"),
        (f"*:{HASH}", "line 1, column 1: not of the form"),
        (f"a,b:{HASH}", "line 1, column 1: not of the form"),
        ("a" * 65 + f":{HASH}", "line 1, column 1: not of the form"),
        (f"{ENTRY}\n{ENTRY}", "line 2, column 1: 'alice' is there twice"),
        ("alice:secret", "line 1, column 7: not a hash of the form $scrypt$"),
        (f"alice:{HASH} ", "line 1, column 7: not a hash"),
        (f"alice:$scrypt$ln=0,r=8,p=5{SALT_AND_DIGEST}", "line 1, column 7: this hash would cost nothing, or too much"),
        (f"alice:$scrypt$ln=14,r=0,p=5{SALT_AND_DIGEST}", "line 1, column 7: this hash would cost"),
        (f"alice:$scrypt$ln=20,r=8,p=1{SALT_AND_DIGEST}", "line 1, column 7: this hash would cost"),
        (f"alice:$scrypt$ln=14,r=8,p=999{SALT_AND_DIGEST}", "line 1, column 7: this hash would cost"),
        (f"alice:$scrypt$ln=٤,r=8,p=1{SALT_AND_DIGEST}", "line 1, column 7: not a hash"),
        ("alice:$scrypt$ln=4,r=8,p=5$" + "A" * 13 + "$" + "A" * 43, "line 1, column 7: salt or digest is no base64"),
    ],
)
def test_a_bad_file_is_refused_with_its_place_and_shows_no_hash(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_users_file(text)
    assert str(caught.value).startswith(message)
    assert SALT_AND_DIGEST not in str(caught.value) and ":secret" not in str(caught.value)


@given(st.text(alphabet=st.sampled_from("alice:$scryptln=,rp0123456789A+/\n# é"), max_size=80))
def test_any_text_gives_users_or_a_configuration_error(text: str) -> None:
    for before in ("", "alice:$scrypt$ln=4,r=8,p=5$"):
        try:
            parse_users_file(before + text)
        except ConfigError as error:
            assert str(error).startswith("line ")


# The script.


def user_entry(name: str, stdin: bytes) -> tuple[int, str, str]:
    command = [sys.executable, str(ROOT / "scripts" / "user-entry"), name]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_script_takes_the_password_from_standard_input() -> None:
    code, out, err = user_entry("alice", b"secret\r\nmore\n")
    assert (code, err) == (0, "")
    entry = parse_users_file(out)["alice"]
    assert (entry.n, entry.r, entry.p) == (2**14, 8, 5)
    assert answer(line_for(entry, b"secret")) == b"yes"


@pytest.mark.parametrize(
    ("name", "stdin", "said"),
    [
        ("al:ice", b"x\n", "user-entry: 'al:ice' is no user's name"),
        ("*", b"x\n", "user-entry: '*' is no user's name"),
        ("alice", b"", "user-entry: a password is not empty"),
        ("alice", b"a\tb\n", "user-entry: a password is not empty and has no control characters"),
        ("alice", b"\xff\n", "user-entry: the password is not UTF-8"),
        ("alice", b"x" * 1000 + b"\n", "user-entry: the password is too long"),
    ],
)
def test_the_script_says_what_is_wrong_in_one_line(name: str, stdin: bytes, said: str) -> None:
    code, out, err = user_entry(name, stdin)
    assert (code, out) == (2, "")
    assert err.startswith(said) and err.count("\n") == 1


@pytest.mark.parametrize(("again", "code"), [(b"secret\n", 0), (b"secrte\n", 2)])
def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(again: bytes, code: int) -> None:
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, str(ROOT / "scripts" / "user-entry"), "alice"])
    said = b""

    def hear(until: Callable[[], bool]) -> None:
        nonlocal said
        while not until() and select.select([terminal], [], [], 60)[0]:
            try:
                said += os.read(terminal, 4096)
            except OSError:  # the other end is gone
                return

    try:
        hear(lambda: b"Password: " in said)
        os.write(terminal, b"secret\n")
        hear(lambda: b"again: " in said)
        os.write(terminal, again)
        hear(lambda: False)
    finally:
        os.close(terminal)
        status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == code
    assert b"secret" not in said
    assert (b"alice:$scrypt$" in said) is (code == 0)

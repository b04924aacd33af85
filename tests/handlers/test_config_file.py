"""Files of the operator's own: what is read, and what is said of those that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from handlers import config_file
from handlers.access_rules import parse_rules_file
from handlers.config_file import read_config
from reactor.errors import ConfigError
from tests.loopback import open_descriptors


def test_a_file_is_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("ä\r\n".encode())
    assert read_config("--rules", str(tmp_path / "file"), str.upper) == "Ä\r\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"allow all\ndeny host=\xff\n", "line 2, column 11: not UTF-8"),
        (b"\xfe", "line 1, column 1: not UTF-8"),
        (b"allow all\ndeny hst=x\n", "line 2, column 6: 'hst=x' is no condition"),
        (b"#" * 101, "longer than 0 MiB"),
    ],
)
def test_what_is_wrong_is_said_with_flag_file_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    monkeypatch.setattr(config_file, "FILE_BYTES", 100)
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_config("--rules", str(path), parse_rules_file)
    assert str(caught.value).startswith(f"--rules {path}: {reason}")


def test_what_is_no_file_is_refused_at_once_and_leaves_no_descriptor(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = open_descriptors()
    for path, reason in (
        (tmp_path / "nowhere", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "fifo", "not a regular file"),
        (Path("/dev/null"), "not a regular file"),
    ):
        with pytest.raises(ConfigError) as caught:
            read_config("--users", str(path), parse_rules_file)
        assert str(caught.value) == f"--users {path}: {reason}"
    assert open_descriptors() == before

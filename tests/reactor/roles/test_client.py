"""--role client: what its flags ask for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from handlers.fetch_command import MAX_REDIRECTS, REMOTE_NAME, FetchOptions
from handlers.parts import FilePart, InputPart
from reactor.errors import ConfigError
from reactor.http.uri import Origin
from reactor.roles.client import add_flags, options_of
from reactor.roles.values import OneLineParser


def flags(*argv: str) -> argparse.Namespace:
    parser = OneLineParser()
    add_flags(parser)
    return parser.parse_intermixed_args([*argv, "http://a/"])


def options(*argv: str) -> FetchOptions:
    return options_of(flags(*argv))


def refused(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        options(*argv)
    return str(caught.value)


def test_nothing_asked_for() -> None:
    assert options() == FetchOptions(["http://a/"], fields=[], outputs=[])


def test_short_flags_together() -> None:
    made = options("-sSLfiv", "-XPUT", "-HA: b", "-oout", "-C-", "-C", "-")
    assert (made.silent, made.show_errors, made.location, made.fail, made.include, made.verbose) == (True,) * 6
    assert (made.method, made.fields, made.outputs, made.resume) == ("PUT", [("A", "b")], ["out"], None)


@pytest.mark.parametrize(
    ("argv", "data"),
    [
        ("-d a=1 -d b=2", [b"a=1", b"&", b"b=2"]),
        ("-d @{file}", [b"onetwo"]),
        ("--data-binary @{file}", [FilePart("{file}")]),
        ("--json @{file}", [FilePart("{file}")]),
        ("--json 1 --json 2", [b"1", b"2"]),
        ("-d @-", [InputPart(strip=True)]),
        ("--data-binary @-", [InputPart(strip=False)]),
        ("-T -", [InputPart(gather=False)]),
        ("-T {file}", [FilePart("{file}")]),
        ("--data-urlencode a&b", [b"a%26b"]),
        ("--data-urlencode =a&b", [b"a%26b"]),
        ("--data-urlencode n@{spaced}", [b"n=a+%2B+b"]),
        ("--data-urlencode n=a=ä", [b"n=a%3D%C3%A4"]),
        ("--data-urlencode @{file}", [b"one%0Atwo%0A"]),
        ("--data-urlencode n@{file}", [b"n=one%0Atwo%0A"]),
    ],
)
def test_bodies(tmp_path: Path, argv: str, data: list[Any]) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one\ntwo\n")
    (tmp_path / "spaced").write_bytes(b"a + b")
    wanted = [FilePart(str(file)) if isinstance(part, FilePart) else part for part in data]
    made = options(*(word.format(file=file, spaced=tmp_path / "spaced") for word in argv.split()))
    assert made.data == wanted
    assert made.method == ("PUT" if "-T" in argv else None)


def test_a_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", bytes)
    file = tmp_path / "file"
    file.write_bytes(b"one\n")
    made = options("-F", 'a"=1', "-F", f"b=<{file}", "-F", f"c=@{file}", "-F", f"d=@{file};type=text/x;filename=n")
    assert made.fields == [("Content-Type", f"multipart/form-data; boundary={'0' * 32}")]
    parts = [part if isinstance(part, bytes) else Path(part.path).read_bytes() for part in made.data or ()]  # type: ignore[union-attr]
    mark = "0" * 32
    assert b"".join(parts).decode().replace("\r\n", "\n") == (
        f'--{mark}\nContent-Disposition: form-data; name="a%22"\n\n1\n'
        f'--{mark}\nContent-Disposition: form-data; name="b"\n\none\n\n'
        f'--{mark}\nContent-Disposition: form-data; name="c"; filename="file"\nContent-Type: application/octet-stream\n\none\n\n'
        f'--{mark}\nContent-Disposition: form-data; name="d"; filename="n"\nContent-Type: text/x\n\none\n\n'
        f"--{mark}--\n"
    )
    assert options("-F", "a=1", "-H", "Content-Type: x").fields == [("Content-Type", "x")]


def test_fields_that_other_flags_make() -> None:
    assert options("-u", "me:secret", "-A", "x", "-e", "http://r/", "-r", "0-9", "-d", "a").fields == [
        ("Content-Type", "application/x-www-form-urlencoded"), ("Authorization", "Basic bWU6c2VjcmV0"),
        ("User-Agent", "x"), ("Referer", "http://r/"), ("Range", "bytes=0-9"),
    ]  # fmt: skip
    assert options("--json", "{}").fields == [("Content-Type", "application/json"), ("Accept", "application/json")]
    assert options("--json", "{}", "-H", "content-type: x", "-H", "Accept:").fields == [("content-type", "x"), ("Accept", None)]
    assert options("-H", "A;", "-H", "B:").fields == [("A", ""), ("B", None)]
    assert options("-H", "A: \u20ac", "-A", "\udcff").fields == [("User-Agent", "\xff"), ("A", "\xe2\x82\xac")]
    assert options("-r", "5").fields == [("Range", "bytes=5-")]
    assert options("-e", "x;auto").fields == [("Referer", "x")]
    assert options("-e", ";auto").auto_referer and not options("-e", "auto").auto_referer
    assert options("-u", "\udcff:x").fields == [("Authorization", "Basic /zp4")]  # bytes as they stand on the command line


def test_fields_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "fields").write_bytes(b"A: 1\r\n\n# B: 2\nC;\nD: \xff")
    made = options("-H", f"@{tmp_path}/fields", "-H", "E: 3", "-H", "F: 4")
    assert made.fields == [("A", "1"), ("C", ""), ("D", "\xff"), ("E", "3"), ("F", "4")]
    assert options().fields == [], "the default is not what was added to"


def test_a_proxy_and_what_it_is_told() -> None:
    me = b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"
    proxy = Origin(b"http", b"p", 80)
    for argv in (["-x", "p", "-U", "me:secret"], ["-x", "me:secret@p"], ["-x", "http://you:x@p/", "-U", "me:secret"]):
        made = options(*argv)
        assert (made.proxy, made.proxy_fields) == (proxy, me)
    assert options("-x", "").proxy is None is options().proxy


def test_a_password_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: "secret" if "me" in prompt else "")
    assert options("-u", "me").fields == [("Authorization", "Basic bWU6c2VjcmV0")]


def test_data_in_the_query(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"c=3\n")
    made = options("-G", "-d", "a=1 2", "-d", f"@{tmp_path}/file")
    assert (made.query, made.data, made.fields) == (b"a=1 2&c=3", None, [])
    assert refused("-G", "-d", "@-").startswith("-G: ")


def test_a_folder_gets_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"")
    assert options("-T", str(tmp_path / "a b")).urls == ["http://a/a%20b"]


def test_files_and_limits() -> None:
    made = options("-O", "-o", "x", "-O", "-R", "-C", "7", "--max-redirs", "3", "--retry", "2", "--max-time", "1.5", "--compressed")
    assert made.outputs == [REMOTE_NAME, "x", REMOTE_NAME]
    assert (made.resume, made.max_redirects, made.retries, made.max_time) == (7, 3, 2, 1.5)
    assert options("--max-redirs", "-1").max_redirects > 1_000_000
    assert made.compressed and made.remote_time and options().max_redirects == MAX_REDIRECTS


@pytest.mark.parametrize(
    "argv",
    [
        "-T none", "-T x -d y", "-F a", "-F a=@none", "-F a=<none", "-F a=b -d c", "-F a=@/dev/null;x=y", "-C 1_0", "-C -1", "-C +1", "-C 5 -r 1-2", "--max-redirs -2", "--retry many", "--max-time soon", "-d @none",
        "--data-urlencode @none", "-H A", "-H A;b", "-H ;", "-H @none", "-X A(B", "-I -d x", "-x ftp://a", "-x a:b@",
    ],
)  # fmt: skip
def test_what_is_refused(argv: str) -> None:
    assert "\n" not in refused(*argv.split())


@pytest.mark.parametrize("flag", ["-A", "-e", "-r"])
def test_no_flag_smuggles_a_field(flag: str) -> None:
    assert refused(flag, "x\r\nY: z")

"""What an answer to an unsafe request makes invalid: RFC 9111 section 4.4, RFC 9875 section 3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.invalidation import Invalidation, invalidates, origin, resolve, same_resource
from tests.cache.cases import fields, request

URI = b"http://example.com/dir/page?q=1"


def gone(lines: str, method: str = "POST", status: int = 200) -> Invalidation:
    return invalidates(request(method=method), URI, status, fields(lines))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "MKCOL", "M-SEARCH", "FOO", "get", "PURGE"])
def test_unsafe_methods_and_those_not_known(method: str) -> None:
    assert gone("X: y", method).keys == (URI,)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"])
def test_safe_methods_invalidate_nothing(method: str) -> None:
    """RFC 9875 section 3: Cache-Group-Invalidation MUST be ignored on them too."""
    assert gone('Location: /other | Cache-Group-Invalidation: "a"', method) == Invalidation()


@pytest.mark.parametrize("status, invalid", [(200, True), (204, True), (299, True), (301, True), (303, True), (399, True)])
@pytest.mark.parametrize("error", [100, 199, 400, 404, 500, 503])
def test_only_a_response_that_is_no_error(status: int, invalid: bool, error: int) -> None:
    assert gone("X: y", status=status).keys == (URI,)
    assert gone('Cache-Group-Invalidation: "a"', status=error) == Invalidation()


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    "reference, key",
    [
        ("/other", b"http://example.com/other"),
        ("http://example.com/other", b"http://example.com/other"),
        ("HTTP://EXAMPLE.com:80/other", b"http://example.com/other"),
        ("//example.com/other", b"http://example.com/other"),
        ("other", b"http://example.com/dir/other"),
        ("../other", b"http://example.com/other"),
        ("?q=2", b"http://example.com/dir/page?q=2"),
        ("#part", None),
        ("", None),
        # Of another origin: none of its business.
        ("https://example.com/other", None),
        ("http://example.com:8080/other", None),
        ("http://www.example.com/other", None),
        ("//other.example/other", None),
        # No URI that could be stored.
        ("mailto:a@example.com", None),
        ("http:/other", None),
        ("http://user@example.com/other", None),
        ("ftp://example.com/", None),
    ],
)
def test_what_it_points_to_within_its_origin(name: str, reference: str, key: bytes | None) -> None:
    assert gone(f"{name}: {reference}").keys == ((URI,) if key is None else (URI, key))


def test_both_locations_count_and_each_key_comes_once() -> None:
    assert gone("Location: /a | Content-Location: /b").keys == (URI, b"http://example.com/a", b"http://example.com/b")
    assert gone("Location: /a | Content-Location: /a").keys == (URI, b"http://example.com/a")
    assert gone("Location: /dir/page?q=1").keys == (URI,)


@pytest.mark.parametrize(
    "value, groups",
    [('"a"', (b"a",)), ('"a", "b";x', (b"a", b"b")), ("a", ()), ('"a", 1', ()), ("", ()), ('"a', ())],
)
def test_groups(value: str, groups: tuple[bytes, ...]) -> None:
    found = gone(f"Cache-Group-Invalidation: {value}")
    assert found.groups == groups and found.keys == (URI,) and found.origin == b"http://example.com"


@pytest.mark.parametrize(
    "reference, resolved",
    [
        # RFC 3986 section 5.4, with base http://a/b/c/d?q
        ("g", "http://a/b/c/g"), ("./g", "http://a/b/c/g"), ("g/", "http://a/b/c/g/"), ("/g", "http://a/g"), ("//g", "http://g/"),
        ("?y", "http://a/b/c/d?y"), ("g?y", "http://a/b/c/g?y"), ("#s", "http://a/b/c/d?q"), ("g#s", "http://a/b/c/g"),
        ("g?y#s", "http://a/b/c/g?y"), (";x", "http://a/b/c/;x"), ("g;x", "http://a/b/c/g;x"), ("", "http://a/b/c/d?q"),
        (".", "http://a/b/c/"), ("./", "http://a/b/c/"), ("..", "http://a/b/"), ("../", "http://a/b/"), ("../g", "http://a/b/g"),
        ("../..", "http://a/"), ("../../", "http://a/"), ("../../g", "http://a/g"), ("../../../g", "http://a/g"),
        ("../../../../g", "http://a/g"), ("/./g", "http://a/g"), ("/../g", "http://a/g"), ("g.", "http://a/b/c/g."),
        (".g", "http://a/b/c/.g"), ("g..", "http://a/b/c/g.."), ("..g", "http://a/b/c/..g"), ("./../g", "http://a/b/g"),
        ("./g/.", "http://a/b/c/g/"), ("g/./h", "http://a/b/c/g/h"), ("g/../h", "http://a/b/c/h"), ("g;x=1/./y", "http://a/b/c/g;x=1/y"),
        ("g;x=1/../y", "http://a/b/c/y"), ("g?y/./x", "http://a/b/c/g?y/./x"), ("g?y/../x", "http://a/b/c/g?y/../x"),
        ("g#s/../x", "http://a/b/c/g"), ("http://g?y", "http://g/?y"), ("http://g", "http://g/"), ("//g?y", "http://g/?y"),
        ("//", None), ("http://", None), ("g:h", None), ("http:g", None), ("?", "http://a/b/c/d?"),
    ],
)  # fmt: skip
def test_references(reference: str, resolved: str | None) -> None:
    assert resolve(b"http://a/b/c/d?q", reference.encode()) == (None if resolved is None else resolved.encode())


def test_origins_and_equal_resources() -> None:
    assert origin(b"http://[::1]:8080/a/b?c=http://d/") == b"http://[::1]:8080"
    assert same_resource(b"http://a/b?c", b"/b?c") and not same_resource(b"http://a/b?c", b"/b")


@given(st.text("ab:/?#.@[]%-", max_size=20))
def test_any_reference_resolves_within_reason(text: str) -> None:
    found = resolve(b"http://a/b/c?d", text.encode())
    assert found is None or found.startswith((b"http://", b"https://"))
    if found is not None and not text.startswith(("/", "?")) and "//" not in text:
        assert origin(found) == b"http://a"

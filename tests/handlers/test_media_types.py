"""Names and types."""

from __future__ import annotations

import pytest

from handlers.media_types import media_type


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"index.html", b"text/html; charset=utf-8"),
        (b"INDEX.HTM", b"text/html; charset=utf-8"),
        (b"app.js", b"text/javascript; charset=utf-8"),
        (b"app.mjs", b"text/javascript; charset=utf-8"),
        (b"style.css", b"text/css; charset=utf-8"),
        (b"data.json", b"application/json"),
        (b"notes.md", b"text/markdown; charset=utf-8"),
        (b"x.py", b"text/plain; charset=utf-8"),
        (b"logo.svg", b"image/svg+xml"),
        (b"photo.JPG", b"image/jpeg"),
        (b"page.wasm", b"application/wasm"),
        (b"font.woff2", b"font/woff2"),
        (b"film.mp4", b"video/mp4"),
        (b"paper.pdf", b"application/pdf"),
        (b"all.tar.gz", b"application/gzip"),
        (b"all.tgz", b"application/gzip"),
        (b"README", b"application/octet-stream"),
        (b"x.", b"application/octet-stream"),
        (b".bashrc", b"application/octet-stream"),
        (b"x.unheard-of", b"application/octet-stream"),
        (b"\xff.html", b"text/html; charset=utf-8"),
        (b"x.\xff", b"application/octet-stream"),
        (b"data:text.html,x", b"application/octet-stream"),
        (b"x.html\n", b"application/octet-stream"),
    ],
)
def test_a_type_by_name(name: bytes, kind: bytes) -> None:
    assert media_type(name) == kind


def test_what_the_table_does_not_have_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {"x.tex": ("text/x-tex", None), "x.ustar": ("application/x-ustar", None), "x.svgz": ("image/svg+xml", "gzip")}
    monkeypatch.setattr("mimetypes.guess_type", lambda name: tables.get(name, (None, None)))
    assert media_type(b"book.tex") == b"text/x-tex; charset=utf-8"
    assert media_type(b"old.ustar") == b"application/x-ustar"
    assert media_type(b"logo.svgz") == b"application/octet-stream", "its coding is not what a Content-Type can say"

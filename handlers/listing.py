"""Directory listings: what lies there, in HTML or, where the client prefers it, in JSON."""

from __future__ import annotations

import datetime
import os
import stat
from html import escape
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from handlers.beneath import Root, Walk
from handlers.pages import respond_json, respond_page, wants_json
from reactor.exchange import Exchange
from reactor.http.paths import encode_segment

LISTED = 5000  # entries of a directory that are looked at


class Entry(NamedTuple):
    """One line of a directory listing; `modified` in seconds since the epoch, `size` in bytes."""

    name: bytes
    directory: bool
    size: int
    modified: float


_COLUMNS = {"name": "Name", "size": "Size", "modified": "Modified"}


def _order(entries: list[Entry], column: str, descending: bool) -> list[Entry]:
    ordered = sorted(entries, key=lambda entry: (entry.name.lower(), entry.name))
    if column == "size":
        ordered.sort(key=lambda entry: entry.size, reverse=descending)
    elif column == "modified":
        ordered.sort(key=lambda entry: entry.modified, reverse=descending)
    elif descending:
        ordered.reverse()
    ordered.sort(key=lambda entry: not entry.directory)  # directories first, whatever the order
    return ordered


def respond_listing(exchange: Exchange, root: Root, walk: Walk, mount: bytes, names: list[bytes], dot_files: bool) -> None:
    """The entries of the directory where the walk stands, to which `names` lead from `mount`, as the query sorts them."""
    entries, whole = _read(root, walk, names, dot_files)
    query = parse_qs(exchange.request.path.partition(b"?")[2].decode("ascii", "replace"))
    column, descending = query.get("sort", ["name"])[0], query.get("order") == ["desc"]
    if column not in _COLUMNS:
        column = "name"
    entries = _order(entries, column, descending)
    path = _text(mount) + "/" + "".join(_text(name) + "/" for name in names)
    fields = [(b"Vary", b"Accept"), (b"Cache-Control", b"no-cache")]
    if wants_json(exchange):
        value = {"path": path, "complete": whole, "entries": [_entry_json(entry) for entry in entries]}
        respond_json(exchange, 200, value, fields)
        return
    rows = [_row(b"../", "..", "d", "", "")] if names else []
    rows += [_entry_row(entry) for entry in entries]
    content = (
        f"<h1>{_crumbs(names)}</h1>\n<table><thead><tr>{_headings(column, descending)}</tr></thead>\n"
        f"<tbody>\n{''.join(rows)}</tbody></table>"
    )
    if not whole:
        content += f"\n<p>Only the first {len(entries)} entries that were found are shown.</p>"
    respond_page(exchange, 200, path, content, fields)


def _read(root: Root, walk: Walk, names: list[bytes], dot_files: bool) -> tuple[list[Entry], bool]:
    """The entries, and whether the directory had no more of them than LISTED."""
    entries: list[Entry] = []
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=walk.here)
    try:
        with os.scandir(fd) as found:
            for item in islice(found, LISTED):
                if item.name.startswith(".") and not dot_files:
                    continue
                name = os.fsencode(item.name)
                try:
                    status = _status_beneath(root, [*names, name]) if item.is_symlink() else item.stat(follow_symlinks=False)
                except OSError:
                    continue  # gone meanwhile, or a link that leads nowhere or out of the root
                if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
                    entries.append(Entry(name, stat.S_ISDIR(status.st_mode), status.st_size, status.st_mtime))
            return entries, next(found, None) is None
    finally:
        os.close(fd)


def _status_beneath(root: Root, names: list[bytes]) -> os.stat_result:
    with root.walk() as walk:
        found = walk.open(names)
        if found is None:
            return os.stat(walk.here)
        os.close(found.fd)
        return found.status


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _entry_json(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {"name": _text(entry.name), "type": "directory" if entry.directory else "file"}
    if not entry.directory:
        found["size"] = entry.size
    found["modified"] = _moment(entry.modified, "%Y-%m-%dT%H:%M:%SZ")
    found["href"] = _href(entry).decode("ascii")
    return found


def _href(entry: Entry) -> bytes:
    # The leading ./ keeps a name with a colon from being read as a scheme (RFC 3986 section 4.2).
    return b"./" + encode_segment(entry.name) + (b"/" if entry.directory else b"")


def _entry_row(entry: Entry) -> str:
    name = _text(entry.name) + ("/" if entry.directory else "")
    size = "" if entry.directory else human_size(entry.size)
    return _row(_href(entry), name, "d" if entry.directory else "f", size, _moment(entry.modified, "%Y-%m-%d %H:%M"))


def _row(href: bytes, name: str, kind: str, size: str, modified: str) -> str:
    link = f'<a href="{escape(href.decode("ascii"), quote=True)}">{escape(name)}</a>'
    return f'<tr><td class="{kind}">{link}</td><td class="n">{size}</td><td class="n w">{modified}</td></tr>\n'


def _headings(column: str, descending: bool) -> str:
    cells = []
    for key, title in _COLUMNS.items():
        order = "asc" if key != column or descending else "desc"
        mark = "" if key != column else " \u2193" if descending else " \u2191"
        kind = {"name": "", "size": ' class="n"', "modified": ' class="n w"'}[key]
        cells.append(f'<th{kind}><a href="?sort={key}&amp;order={order}">{title}{mark}</a></th>')
    return "".join(cells)


def _crumbs(names: list[bytes]) -> str:
    up = len(names)
    crumbs = [f'<a href="{"../" * up or "./"}">root</a>']
    for at, name in enumerate(names, 1):
        crumbs.append(f'<a href="{"../" * (up - at) or "./"}">{escape(_text(name))}</a>')
    return " / ".join(crumbs) + " /"


def _moment(seconds: float, pattern: str) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime(pattern)
    except (ValueError, OverflowError, OSError):
        return ""  # a time stamp beyond the calendar


def human_size(size: int) -> str:
    """Bytes as people read them: `1.2 MB`, in powers of ten."""
    if size < 1000:
        return f"{size} B"
    amount = float(size)
    for unit in ("kB", "MB", "GB", "TB", "PB", "EB"):
        amount /= 1000
        if amount < 999.95:
            break
    return f"{amount:.1f} {unit}"

"""A file's name → its Content-Type: a fixed table first, so that an answer does not vary by machine."""

from __future__ import annotations

import mimetypes
import os

OCTETS = "application/octet-stream"

_TYPES = {
    "text/html": "html htm",
    "text/css": "css",
    "text/javascript": "js mjs cjs",  # RFC 9239
    # Program text is plain text, which browsers show instead of saving it.
    "text/plain": "txt text log ini cfg conf in def list asc rst py pyi sh bash c h cc hh cpp hpp rs go java rb pl lua sql"
    " diff patch",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/markdown": "md markdown",
    "text/calendar": "ics ifb",
    "text/vcard": "vcf vcard",
    "text/vtt": "vtt",
    "application/json": "json map",
    "application/ld+json": "jsonld",
    "application/geo+json": "geojson",
    "application/manifest+json": "webmanifest",
    "application/x-ndjson": "ndjson jsonl",
    "application/yaml": "yaml yml",
    "application/toml": "toml",
    "application/xml": "xml xsl xsd",
    "application/xhtml+xml": "xhtml xht",
    "application/atom+xml": "atom",
    "application/rss+xml": "rss",
    "application/wasm": "wasm",
    "application/pdf": "pdf",
    "application/rtf": "rtf",
    "application/postscript": "ps eps ai",
    "application/epub+zip": "epub",
    "application/zip": "zip",
    "application/gzip": "gz tgz",
    "application/zstd": "zst",
    "application/x-bzip2": "bz2",
    "application/x-xz": "xz",
    "application/x-brotli": "br",
    "application/x-tar": "tar",
    "application/x-7z-compressed": "7z",
    "application/java-archive": "jar war",
    "application/vnd.debian.binary-package": "deb udeb",
    "application/x-rpm": "rpm",
    "application/x-sqlite3": "sqlite sqlite3 db",
    "application/vnd.ms-fontobject": "eot",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/vnd.apple.mpegurl": "m3u8",
    "application/dash+xml": "mpd",
    "font/woff": "woff",
    "font/woff2": "woff2",
    "font/ttf": "ttf",
    "font/otf": "otf",
    "image/png": "png",
    "image/apng": "apng",
    "image/jpeg": "jpg jpeg jpe jfif",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/heic": "heic",
    "image/jxl": "jxl",
    "image/svg+xml": "svg",
    "image/x-icon": "ico cur",
    "image/bmp": "bmp",
    "image/tiff": "tif tiff",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/ogg": "ogg oga opus",
    "audio/flac": "flac",
    "audio/wav": "wav",
    "audio/aac": "aac",
    "audio/midi": "mid midi",
    "audio/webm": "weba",
    "video/mp4": "mp4 m4v",
    "video/webm": "webm",
    "video/ogg": "ogv",
    "video/mpeg": "mpeg mpg",
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
    "video/x-msvideo": "avi",
    "video/mp2t": "ts m2ts",
    OCTETS: "bin exe dll so iso img dmg msi dat o a pyc",
}
_BY_EXTENSION = {extension: kind for kind, extensions in _TYPES.items() for extension in extensions.split()}


def media_type(name: bytes) -> bytes:
    """The Content-Type for a file of this name; text is said to be UTF-8, what nobody knows is octets."""
    extension = os.path.splitext(name.decode("utf-8", "replace"))[1][1:].lower()
    kind = _BY_EXTENSION.get(extension) or _guess(extension) or OCTETS
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return kind.encode("ascii", "replace")


def _guess(extension: str) -> str | None:
    """What this machine's own tables say, for what the fixed table does not have."""
    if not extension.isalnum():
        return None
    kind, coding = mimetypes.guess_type("x." + extension)
    return None if coding else kind

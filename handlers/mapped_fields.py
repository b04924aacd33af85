"""Fields in which an upstream's answer names itself, put as they are to be read here.

    Location, Content-Location, SourceMap   a URI reference
    Refresh                                 the one behind `url=`
    Link                                    each target, and each anchor (RFC 8288 section 3)
    Set-Cookie                              Path and Domain (RFC 6265 section 5.2)

What does not parse stays as it is, and so does what names others. Access-Control-Allow-Origin is among these: it names
the page whose script asks, not the upstream that answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from posixpath import commonpath

from handlers.upstreams import Upstream, Upstreams
from reactor.http.fields import Fields
from reactor.http.grammar import OWS, QUOTED_STRING, TCHAR

# In the Link fields of one message; where there is more, they all stay as they are.
MAX_LINKS = 64
MAX_BASES = 64 * 1024  # bytes of the paths that they are resolved against: the target's, once for each link

# Each name in lower case, and as it is spelled where it was changed.
_SPELLED = {
    b"location": b"Location",
    b"content-location": b"Content-Location",
    b"sourcemap": b"SourceMap",
    b"refresh": b"Refresh",
    b"link": b"Link",
    b"set-cookie": b"Set-Cookie",
}
MAPPED = frozenset(_SPELLED)

# HTML standard, "shared declarative refresh steps", as far as it is written by anybody.
_REFRESH = re.compile(
    rb"([0-9]++(?:\.[0-9]*+)?[ \t]*[;,][ \t]*(?i:url)[ \t]*=[ \t]*)" + rb"""(?:(["'])([^"' \t]*)\2|([^"' \t][^ \t]*))"""
)

# RFC 8288 section 3; a parameter's bare value as its appendix B.3 reads it, which is how `type=text/css` is written.
# Possessive quantifiers, so that no white space can be read in two ways.
_VALUE = rb"(?:" + QUOTED_STRING + rb"|[^ \t\",;<>]++)"
_PARAMETER = rb"[ \t]*+;[ \t]*+(?:" + TCHAR + rb"++(?:[ \t]*+=[ \t]*+" + _VALUE + rb")?)?"
_LINK = rb"<[^<>\"]*+>(?:" + _PARAMETER + rb")*+"
_LINKS = re.compile(_LINK + rb"(?:[ \t]*+,(?:[ \t]*+" + _LINK + rb")?)*+[ \t]*+")
# What such a field is searched for: a target, an anchor, or a quoted string that may look as if it held one.
_NAMED = re.compile(rb"(<)([^<>\"]*)(>)|(;[ \t]*(?i:anchor)[ \t]*=[ \t]*\")([^\"\\]*)(\")|" + QUOTED_STRING)

Reference = Callable[[bytes], bytes]


def map_fields(
    fields: Fields, upstreams: Upstreams, used: Upstream, target: bytes, host: bytes, asked_as: Sequence[bytes] = ()
) -> None:
    """Map them all; `host` is the name (in lower case) that we were asked by. For the others see `Upstreams.map_back`."""
    reference = partial(upstreams.map_back, used=used, target=target, asked_as=asked_as)
    for name, spelled in _SPELLED.items():
        if name not in fields.index:
            continue
        values = fields.get_all(name)
        if name == b"set-cookie":
            mapped = [_cookie(value, upstreams, used, host) for value in values]
        elif name == b"link":
            count = fields.index[name].count(b"<") + fields.index[name].lower().count(b"anchor")
            within = count <= MAX_LINKS and count * len(target) <= MAX_BASES
            mapped = [_links(value, reference) for value in values] if within else values
        elif len(values) == 1:  # each of the others is one value, or in doubt
            mapped = [_refresh(values[0], reference) if name == b"refresh" else reference(values[0])]
        else:
            mapped = values
        if mapped != values:
            fields.remove(name)
            for value in mapped:
                fields.add(spelled, value)


def _refresh(value: bytes, reference: Reference) -> bytes:
    match = _REFRESH.fullmatch(value)
    if match is None:
        return value
    before, quote, quoted, bare = match.groups()
    if quote is None:
        return before + reference(bare)
    return before + quote + _between(quoted, reference, b"\"'") + quote


def _links(value: bytes, reference: Reference) -> bytes:
    if _LINKS.fullmatch(value) is None:
        return value

    def replaced(match: re.Match[bytes]) -> bytes:
        begin, uri, end = match.groups()[:3] if match[1] else match.groups()[3:]
        return match[0] if begin is None else begin + _between(uri, reference, b'<>"') + end

    return _NAMED.sub(replaced, value)


def _between(uri: bytes, reference: Reference, marks: bytes) -> bytes:
    """The reference mapped, unless it would hold one of the marks around it: the client's own path may be in it."""
    mapped = reference(uri)
    return uri if mapped.translate(None, marks) != mapped else mapped


def _cookie(value: bytes, upstreams: Upstreams, used: Upstream, host: bytes) -> bytes:
    pair, *attributes = value.split(b";")  # quotes mean nothing here
    name, equals, _ = pair.partition(b"=")
    if not equals:
        return value
    at_root = name.strip(OWS).lower().startswith(b"__host-")  # RFC 6265bis section 4.1.3.2: with another Path it is refused
    parts = [pair]
    for attribute in attributes:
        name, _, said = attribute.partition(b"=")
        name, said = name.strip(OWS).lower(), said.strip(OWS)
        if name == b"path" and said.startswith(b"/") and not at_root:
            mapped = _cookie_path(said, used, upstreams)
            attribute = attribute if mapped == said else attribute[: attribute.index(b"=") + 1] + mapped
        elif name == b"domain" and _of_upstream_alone(said.removeprefix(b".").lower(), used, host):
            continue  # then it is for the very host that was asked, whatever that is called
        parts.append(attribute)
    return b";".join(parts)


def _cookie_path(path: bytes, used: Upstream, upstreams: Upstreams) -> bytes:
    """The path that holds all places here to which the upstream's origin would have the cookie sent, and no more.

    So one for `/` stays beneath the upstream's own prefix: its neighbours are other applications.
    """
    same = [upstream for upstream in upstreams.all if upstream.origin == used.origin]
    places = [place for upstream in same if (place := _place(path, upstream))]
    return commonpath(places) if len(places) > 1 else places[0] if places else path


def _place(path: bytes, upstream: Upstream) -> bytes | None:
    whole = upstream.prefix or b"/"
    # RFC 6265 section 5.1.4
    if whole == path or (whole.startswith(path) and (path.endswith(b"/") or whole[len(path) :][:1] == b"/")):
        return upstream.at or b"/"
    return upstream.local(path)


def _of_upstream_alone(domain: bytes, used: Upstream, host: bytes) -> bool:
    """Whether a cookie for this domain is the upstream's to set, and would be refused from the host that we are."""
    return _domain_matches(used.origin.host, domain) and not _domain_matches(host, domain)


def _domain_matches(host: bytes, domain: bytes) -> bool:
    """RFC 6265 section 5.1.3"""
    is_name = not host.rpartition(b".")[2].isdigit()
    return host == domain or (bool(domain) and is_name and host.endswith(b"." + domain))

"""Dialogues through a real proxy with its cache: what clients ask, what the origin answers, who is asked and who is not.

A step a line:

    > [METHOD] [/path] [| Field: value ...]     a client asks
    ? Field: value [| -Field ...]               what the origin must see of it (`-Field`: must not)
    < STATUS [| Field: value ...]               the origin is asked, and answers; `{+60}` is the date a minute from now
    < close                                     it is asked, and hangs up
    = [#N | 'x'] [STATUS] [| Field: value | -Field]   what the client must get: `#N` is the body of the origin's Nth answer
    + SECONDS                                   time passes

Where no `<` stands between `>` and `=`, the origin must not have been asked. The body of an answer is its number, unless
`Body:` says otherwise; `Date: none` leaves that out.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cache.policy import Policy
from cache.stores.memory import MemoryStore
from reactor.http.dates import format_date
from tests.loopback import Answer, House, housed
from tests.origin import Proxy

POLICY = Policy(targets=(b"cdn-cache-control",), store_partial=True)
FRESH = "Cache-Control: max-age=3600"
DATED = "Last-Modified: {-100000}"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


class Dialogue:
    """One case on its way."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.proxy = Proxy(house, reverse=True, store=MemoryStore(1 << 20), policy=POLICY)
        self.bodies: list[bytes] = []

    def play(self, text: str) -> None:
        for line in text.strip().splitlines():
            mark, *fields = line.strip().split(" | ")
            does = {">": self.ask, "?": self.seen, "<": self.answer, "=": self.got, "+": self.wait}[mark[0]]
            does(mark[1:].strip(), fields)
        self.finish()

    def ask(self, words: str, fields: list[str]) -> None:
        self.finish()
        method = words.split()[0] if words and not words.startswith("/") else "GET"
        path = words.split()[-1] if "/" in words else "/"
        lines = [self.dated(field) for field in fields]
        if method in ("POST", "PUT", "PATCH"):
            lines.append("Content-Length: 0")
        self.method, self.result, self.heard = method, None, None  # type: Answer | None
        self.client = self.proxy.connect()
        self.client.send(self.proxy.request(method, path, *lines))
        self.open = True

    open = False
    result: Answer | None = None

    def dated(self, field: str) -> str:
        while "{" in field:
            before, _, rest = field.partition("{")
            offset, _, after = rest.partition("}")
            field = before + format_date(self.house.wall.now + float(offset)).decode() + after
        return field

    def hear(self) -> None:
        if self.heard is None:
            self.heard = self.proxy.asked()
            assert self.heard.method.decode() == self.method
            self.heard.body()

    def seen(self, words: str, fields: list[str]) -> None:
        self.hear()
        assert self.heard is not None
        check(self.heard.fields, [words, *fields])

    def answer(self, words: str, fields: list[str]) -> None:
        self.hear()
        assert self.heard is not None
        if words == "close":
            self.heard.peer.reset()
            self.house.turns()
            if self.proxy.heard():  # what was kept alive may have been closed before the request came: it is sent once more
                self.proxy.asked().peer.reset()
            return
        body = str(len(self.bodies) + 1).encode()
        lines = []
        for field in map(self.dated, fields):
            name, _, value = field.partition(": ")
            if name == "Body":
                body = value.encode()
            else:
                lines.append(field)
        if not any(line.startswith("Date:") for line in lines):
            lines.insert(0, self.dated("Date: {0}"))
        lines = [line for line in lines if line != "Date: none"]
        self.bodies.append(body)
        empty = words in ("204", "304") or self.method == "HEAD"
        if words != "204" and words != "304":
            lines.append(f"Content-Length: {len(body)}")
        head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {words} Whatever", *lines, ""))
        self.heard.peer.send(head.encode("latin-1") + (b"" if empty else body))
        if words.startswith("1"):
            raise AssertionError("interim responses are for another test")
        self.heard = None

    def got(self, words: str, fields: list[str]) -> None:
        if self.result is None:
            self.result = self.client.answer(self.method.encode())
        for word in words.split():
            if word.startswith("#"):
                assert self.result.body == self.bodies[int(word[1:]) - 1], self.result
            elif word.startswith("'"):
                assert self.result.body == word[1:-1].encode(), self.result
            else:
                assert self.result.status == int(word), self.result
        check(self.result.fields, fields)

    def wait(self, words: str, fields: list[str]) -> None:
        self.finish()
        self.house.pass_time(float(words))

    def finish(self) -> None:
        """The client reads what it was given; what it did not ask the origin for, the origin did not hear."""
        if not self.open:
            return
        self.open = False
        if self.result is None:
            self.result = self.client.answer(self.method.encode())
        self.client.close()
        self.proxy.not_asked()


def check(found: dict[bytes, bytes], expected: list[str]) -> None:
    for line in filter(None, expected):
        if line.startswith("-"):
            assert line[1:].lower().encode() not in found, line
        else:
            name, _, value = line.partition(": ")
            assert found.get(name.lower().encode()) == value.encode("latin-1"), (line, found)


def stored(*lines: str, status: int = 200, then: str = "= #1") -> str:
    """A response with these fields is there for the next one that asks."""
    return f"> \n< {status} | {' | '.join(lines)}\n> \n{then}"


def not_stored(*lines: str, status: int = 200) -> str:
    """The next one is fetched anew."""
    return stored(*lines, status=status, then="< 200\n= #2")


CASES: dict[str, str] = {}


def cases(prefix: str, found: dict[str, str]) -> None:
    for name, text in found.items():
        assert f"{prefix}: {name}" not in CASES
        CASES[f"{prefix}: {name}"] = text


# Freshness: RFC 9111 section 4.2.1.

cases(
    "freshness",
    {
        "nothing said": not_stored("X: 1"),
        "max-age": stored(FRESH),
        "max-age over": f"> \n< 200 | {FRESH}\n+ 3600\n> \n< 200\n= #2",
        "max-age=0": not_stored("Cache-Control: max-age=0"),
        "max-age 2^31-1": stored("Cache-Control: max-age=2147483647"),
        "max-age 2^31": stored("Cache-Control: max-age=2147483648"),
        "max-age 2^31+1": stored("Cache-Control: max-age=2147483649"),
        "max-age huge": stored("Cache-Control: max-age=99999999999"),
        "max-age and a larger Age": not_stored(FRESH, "Age: 12000"),
        "max-age and a Date long ago": not_stored(FRESH, "Date: {-7200}"),
        "max-age and Expires past": stored(FRESH, "Expires: {-7200}"),
        "max-age=0 and Expires future": not_stored("Cache-Control: max-age=0", "Expires: {+7200}"),
        "max-age and an invalid Expires": stored(FRESH, "Expires: 0"),
        "unknown directives": stored("Cache-Control: foobar, max-age=3600, foo=bar, baz=\"q, uux\""),
        "case": stored("Cache-Control: MaX-aGe=3600"),
        "negative": not_stored("Cache-Control: max-age=-3600"),
        "s-maxage": stored("Cache-Control: s-maxage=3600"),
        "s-maxage longer": stored("Cache-Control: max-age=1, s-maxage=3600", then="+ 2\n> \n= #1"),
        "s-maxage longer, reversed": stored("Cache-Control: s-maxage=3600, max-age=1", then="+ 2\n> \n= #1"),
        "s-maxage longer, two lines": stored(
            "Cache-Control: max-age=1", "Cache-Control: s-maxage=3600", then="+ 2\n> \n= #1"
        ),
        "s-maxage shorter": "> \n< 200 | Cache-Control: max-age=3600, s-maxage=1\n+ 2\n> \n< 200\n= #2",
        "s-maxage shorter than Expires": "> \n< 200 | Cache-Control: s-maxage=1 | Expires: {+3600}\n+ 2\n> \n< 200\n= #2",
        "s-maxage=0 and max-age": not_stored("Cache-Control: max-age=3600, s-maxage=0"),
    },
)

# How Cache-Control is read: RFC 9111 sections 4.2.1, 5.2 and 1.2.2, RFC 9110 section 5.6.

cases(
    "parsing",
    {
        "two on a line, one stale": not_stored("Cache-Control: max-age=1800, max-age=0"),
        "two on a line, the stale one first": not_stored("Cache-Control: max-age=0, max-age=1800"),
        "two lines, one stale": not_stored("Cache-Control: max-age=1800", "Cache-Control: max-age=0"),
        "two lines, the stale one first": not_stored("Cache-Control: max-age=0", "Cache-Control: max-age=1800"),
        "quoted": stored('Cache-Control: max-age="3600"'),
        "single quotes": not_stored("Cache-Control: max-age='3600'"),
        "a quote without its end": not_stored('Cache-Control: max-age="3600'),
        "in a quoted string": not_stored('Cache-Control: extension="max-age=3600", max-age=0'),
        "in a quoted string, reversed": not_stored('Cache-Control: max-age=0, extension="max-age=3600"'),
        "beside a quoted string": stored('Cache-Control: extension="max-age=0", max-age=3600'),
        "space before =": not_stored("Cache-Control: max-age =3600"),
        "space behind =": not_stored("Cache-Control: max-age= 3600"),
        "leading zeros": stored("Cache-Control: max-age=00003600"),
        "decimal": not_stored("Cache-Control: max-age=3600.0"),
        "decimal of a half": not_stored("Cache-Control: max-age=3600.5"),
        "a letter before": not_stored("Cache-Control: max-age=a3600"),
        "a letter behind": not_stored("Cache-Control: max-age=3600a"),
        "plus": not_stored("Cache-Control: max-age=+3600"),
        "no argument": not_stored("Cache-Control: max-age"),
        "empty members": stored("Cache-Control: , max-age=3600, ,"),
        "only empty members": not_stored("Cache-Control: ,"),
        "tabs": stored("Cache-Control: \tfoo\t,\tmax-age=3600\t"),
        "semicolons divide nothing": not_stored("Cache-Control: max-age=3600; foo"),
        "a name that ends so": not_stored("Cache-Control: x-max-age=3600"),
        "no-store in a quoted string": stored('Cache-Control: max-age=3600, a="no-store"'),
        "no-store with an argument": not_stored("Cache-Control: max-age=3600, no-store=1"),
        "public with an argument": stored("Cache-Control: max-age=3600, public=1"),
    },
)

# What a request says: RFC 9111 section 5.2.1.

cases(
    "request",
    {
        "max-age=0": f"> \n< 200 | {FRESH}\n> | Cache-Control: max-age=0\n< 200\n= #2",
        "max-age exceeded": f"> \n< 200 | {FRESH}\n+ 3\n> | Cache-Control: max-age=1\n< 200\n= #2",
        "max-age not exceeded": f"> \n< 200 | {FRESH}\n+ 3\n> | Cache-Control: max-age=3\n= #1",
        "max-age and Age": f"> \n< 200 | {FRESH} | Age: 1800\n> | Cache-Control: max-age=600\n< 200\n= #2",
        "max-age on a miss": f"> | Cache-Control: max-age=1000\n< 200 | {FRESH}\n> \n= #1",
        "max-stale": '> \n< 200 | Cache-Control: max-age=1 | ETag: "a"\n+ 3\n> | Cache-Control: max-stale=1000\n= #1',
        "max-stale of any age": '> \n< 200 | Cache-Control: max-age=1 | ETag: "a"\n+ 3\n> | Cache-Control: max-stale\n= #1',
        "max-stale exceeded": '> \n< 200 | Cache-Control: max-age=1 | ETag: "a"\n+ 9\n> | Cache-Control: max-stale=2\n'
        '< 200',
        "max-stale and Age": '> \n< 200 | Cache-Control: max-age=1500 | Age: 2000 | ETag: "a"'
        "\n> | Cache-Control: max-stale=1000\n= #1 | Age: 2000",
        "max-stale and Age, without a validator": "> \n< 200 | Cache-Control: max-age=1500 | Age: 2000"
        "\n> | Cache-Control: max-stale=1000\n= #1 | Age: 2000",
        "max-stale where nothing was ever fresh": "> \n< 200 | Cache-Control: max-age=0\n> | Cache-Control: max-stale\n< 200\n= #2",
        "max-stale and must-revalidate": '> \n< 200 | Cache-Control: max-age=1, must-revalidate | ETag: "a"'
        "\n+ 3\n> | Cache-Control: max-stale=1000\n< 200\n= #2",
        "min-fresh": "> \n< 200 | Cache-Control: max-age=1500\n> | Cache-Control: min-fresh=2000\n< 200\n= #2",
        "min-fresh met": "> \n< 200 | Cache-Control: max-age=1500\n> | Cache-Control: min-fresh=1000\n= #1",
        "min-fresh and Age": "> \n< 200 | Cache-Control: max-age=1500 | Age: 1000\n> | Cache-Control: min-fresh=1000\n"
        "< 200",
        "no-cache": f"> \n< 200 | {FRESH}\n> | Cache-Control: no-cache\n< 200\n= #2\n> \n< 200\n= #3",
        "no-cache, replaced": f"> \n< 200 | {FRESH}\n> | Cache-Control: no-cache\n< 200 | {FRESH}\n= #2\n> \n= #2",
        "no-cache with ETag": f'> \n< 200 | {FRESH} | ETag: "a"\n> | Cache-Control: no-cache\n? If-None-Match: "a"\n'
        '< 304 | ETag: "a"\n= #1 200',
        "no-cache with Last-Modified": f"> \n< 200 | {FRESH} | {DATED}\n> | Cache-Control: no-cache\n"
        "? If-Modified-Since: Sat, 05 Nov 1994 05:02:57 GMT\n< 304\n= #1 200",
        "no-cache beside others": f"> \n< 200 | {FRESH}\n> | Cache-Control: foo, NO-CACHE\n< 200\n= #2",
        "no-store does not hide what is stored": f"> \n< 200 | {FRESH}\n> | Cache-Control: no-store\n= #1",
        "no-store on a miss": f"> | Cache-Control: no-store\n< 200 | {FRESH}\n> \n< 200\n= #2",
        "no-store, validation": f'> \n< 200 | {FRESH} | ETag: "a"\n+ 3600\n> | Cache-Control: no-store\n'
        f'< 200 | {FRESH}\n= #2\n'
        "> | Cache-Control: max-stale\n= #1",
        "only-if-cached": f"> \n< 200 | {FRESH}\n> | Cache-Control: only-if-cached\n= #1",
        "only-if-cached, nothing there": "> | Cache-Control: only-if-cached\n= 504 | -Cache-Status",
        "only-if-cached, stale": f"> \n< 200 | {FRESH}\n+ 3600\n> | Cache-Control: only-if-cached\n= 504",
        "Pragma": f"> \n< 200 | {FRESH}\n> | Pragma: no-cache\n< 200\n= #2",
        "Pragma beside Cache-Control": f"> \n< 200 | {FRESH}\n> | Pragma: no-cache | Cache-Control: max-stale=1\n= #1",
        "Pragma of another kind": f"> \n< 200 | {FRESH}\n> | Pragma: foo\n= #1",
        "unknown directives": f"> \n< 200 | {FRESH}\n> | Cache-Control: foo, bar=baz\n= #1",
        "Cache-Control goes on": "> | Cache-Control: foo, max-age=1\n? Cache-Control: foo, max-age=1\n< 200",
    },
)

# What a response says: RFC 9111 section 5.2.2, RFC 8246.

cases(
    "response",
    {
        "no-cache": not_stored("Cache-Control: no-cache"),
        "no-cache and freshness": not_stored("Cache-Control: max-age=3600, no-cache"),
        "No-CaChE": not_stored("Cache-Control: max-age=3600, No-CaChE"),
        "no-cache is validated": '> \n< 200 | Cache-Control: no-cache, max-age=3600 | ETag: "a"\n> \n? If-None-Match: "a"\n'
        '< 304 | ETag: "a"\n= #1 200\n> \n? If-None-Match: "a"\n< 200',
        "no-cache lifted by a 304": '> \n< 200 | Cache-Control: no-cache | ETag: "a"\n> \n'
        f'< 304 | ETag: "a" | {FRESH}\n= #1\n> \n= #1 | {FRESH}',
        "no-cache of one field": stored(f'{FRESH}, no-cache="a"', "A: 1", "B: 2", then="= #1 | -A | B: 2"),
        "no-cache of two fields": stored(
            'Cache-Control: max-age=3600, no-cache="a, B"', "A: 1", "b: 2", "C: 3", then="= #1 | -A | -B | C: 3"
        ),
        "private of one field": stored('Cache-Control: max-age=3600, private="a"', "A: 1", "B: 2", then="= #1 | -A | B: 2"),
        "no-store": not_stored("Cache-Control: no-store"),
        "no-store and freshness": not_stored("Cache-Control: max-age=3600, No-StOrE"),
        "no-store ends what was there": f"> \n< 200 | {FRESH} | ETag: \"a\"\n> | Cache-Control: no-cache\n"
        "< 200 | Cache-Control: no-store\n= #2\n> \n< 200\n= #3",
        "private": not_stored("Cache-Control: private, max-age=3600"),
        "PrIvAtE": not_stored("Cache-Control: max-age=3600, PrIvAtE"),
        "public": stored("Cache-Control: public", DATED, status=503),
        "must-revalidate": stored("Cache-Control: max-age=3600, must-revalidate"),
        "must-understand, understood": stored("Cache-Control: max-age=3600, no-store, must-understand"),
        "must-understand, not understood": not_stored("Cache-Control: max-age=3600, must-understand", status=599),
        "immutable": stored("Cache-Control: max-age=3600, immutable", then="> | Cache-Control: max-age=0\n= #1"),
        "immutable, stale": "> \n< 200 | Cache-Control: max-age=1, immutable\n+ 2\n> \n< 200\n= #2",
        "Pragma: no-cache": stored("Pragma: no-cache", FRESH),
        "Pragma of another kind": stored("Pragma: foo", FRESH),
        "Pragma says nothing of freshness": not_stored("Pragma: no-cache", DATED),
        "Warning is nothing": stored(FRESH, 'Warning: 110 a "stale"', then='= #1 | Warning: 110 a "stale"'),
    },
)

# Age: RFC 9111 sections 4.2.3 and 5.1.

cases(
    "age",
    {
        "is generated": stored(FRESH, then="+ 3\n> \n= #1 | Age: 3"),
        "is added to": stored(FRESH, "Age: 30", then="+ 3\n> \n= #1 | Age: 33"),
        "counts from Date": stored(FRESH, "Date: {-30}", then="= #1 | Age: 30"),
        "is the larger of both": stored(FRESH, "Date: {-30}", "Age: 50", then="= #1 | Age: 50"),
        "Date is not changed": "> \n< 200 | Cache-Control: max-age=3600 | Date: Sun, 06 Nov 1994 08:49:30 GMT\n"
        "+ 5\n> \n= #1 | Date: Sun, 06 Nov 1994 08:49:30 GMT | Age: 12",
        "Expires is not changed": "> \n< 200 | Expires: Sun, 06 Nov 1994 09:49:30 GMT\n"
        "+ 5\n> \n= #1 | Expires: Sun, 06 Nov 1994 09:49:30 GMT",
        "letters": stored(FRESH, "Age: abc"),
        "negative": stored(FRESH, "Age: -7200"),
        "decimal": stored(FRESH, "Age: 7200.0"),
        "a letter before": stored(FRESH, "Age: a7200"),
        "a letter behind": stored(FRESH, "Age: 7200a"),
        "a parameter": stored(FRESH, "Age: 7200;foo=bar"),
        "a parameter of a small one": stored(FRESH, "Age: 1;foo=bar"),
        "the first of two lines": not_stored(FRESH, "Age: 7200", "Age: 0"),
        "the first of two": not_stored(FRESH, "Age: 7200, 0"),
        "the first of two, small": stored(FRESH, "Age: 0, 7200"),
        "the first of two lines, small": stored(FRESH, "Age: 0", "Age: 7200"),
        "2^31": not_stored(FRESH, "Age: 2147483648"),
        "beyond": not_stored(FRESH, "Age: 99999999999999999999"),
        "empty": stored(FRESH, "Age: "),
        "goes to who asked": "> \n< 200 | Cache-Control: max-age=3600 | Age: 7\n= #1 | Age: 7",
    },
)

# Expires: RFC 9111 section 5.3, dates as RFC 9110 section 5.6.7 has them.

cases(
    "expires",
    {
        "future": stored("Expires: {+3600}"),
        "past": not_stored("Expires: {-3600}"),
        "present": not_stored("Expires: {0}"),
        "0": not_stored("Expires: 0"),
        "nonsense": not_stored("Expires: tomorrow"),
        "counts from Date": not_stored("Expires: {+3600}", "Date: {+3600}"),
        "and a Date long ago": stored("Expires: {+30}", "Date: {-30}", then="+ 29\n> \n= #1\n+ 1\n> \n< 200\n= #2"),
        "without a Date": stored("Expires: {+3600}", "Date: none"),
        "and an invalid Date": stored("Expires: {+3600}", "Date: foo"),
        "twice the same": stored("Expires: {+3600}", "Expires: {+3600}"),
        "twice, one past": not_stored("Expires: {+3600}", "Expires: {-3600}"),
        "twice, one past, reversed": not_stored("Expires: {-3600}", "Expires: {+3600}"),
        "far in the future": stored("Expires: Fri, 31 Dec 9999 23:59:59 GMT"),
        "and other directives": stored("Expires: {+3600}", "Cache-Control: foo=bar"),
        "IMF-fixdate": stored("Expires: Thu, 18 Aug 2050 02:01:18 GMT"),
        "RFC 850": stored("Expires: Monday, 07-Nov-94 02:01:18 GMT"),
        "asctime": stored("Expires: Thu Aug  8 02:01:18 2050"),
        "lower case": stored("Expires: thu, 18 aug 2050 02:01:18 gmt"),
        "upper case": stored("Expires: THU, 18 AUG 2050 02:01:18 GMT"),
        "another weekday than it was": stored("Expires: Mon, 18 Aug 2050 02:01:18 GMT"),
        "one digit of the hour": not_stored("Expires: Thu, 18 Aug 2050 2:01:18 GMT"),
        "two digits of the year": not_stored("Expires: Thu, 18 Aug 50 02:01:18 GMT"),
        "another zone": not_stored("Expires: Thu, 18 Aug 2050 02:01:18 AEST"),
        "UTC": not_stored("Expires: Thu, 18 Aug 2050 02:01:18 UTC"),
        "an offset": not_stored("Expires: Thu, 18 Aug 2050 02:01:18 +0000"),
        "dashes": not_stored("Expires: Thu, 18-Aug-2050 02:01:18 GMT"),
        "no comma": not_stored("Expires: Thu 18 Aug 2050 02:01:18 GMT"),
        "no weekday": not_stored("Expires: 18 Aug 2050 02:01:18 GMT"),
        "several spaces": not_stored("Expires: Thu,  18  Aug  2050  02:01:18  GMT"),
        "periods": not_stored("Expires: Thu, 18 Aug 2050 02.01.18 GMT"),
        "no such day": not_stored("Expires: Thu, 32 Aug 2050 02:01:18 GMT"),
        "no such hour": not_stored("Expires: Thu, 18 Aug 2050 25:01:18 GMT"),
        "ISO 8601": not_stored("Expires: 2050-08-18T02:01:18Z"),
        "seconds": not_stored("Expires: 2544400878"),
        "a list": not_stored("Expires: {+3600}, {+3600}"),
    },
)

# Heuristics: RFC 9111 section 4.2.2.

HEURISTIC = {200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501}
cases(
    "heuristic",
    {
        **{f"{status}": stored(DATED, status=status, then=f"= {status}") for status in sorted(HEURISTIC)},
        **{
            f"{status}": not_stored(DATED, status=status)
            for status in (201, 202, 299, 302, 303, 307, 400, 401, 403, 409, 499, 500, 502, 503, 504, 599)
        },
    },
)
cases(
    "heuristic",
    {
        "a tenth": stored("Last-Modified: {-100}", then="+ 9\n> \n= #1\n+ 1\n> \n< 200\n= #2"),
        "at most a day": stored("Last-Modified: {-10000000}", then="+ 86399\n> \n= #1\n+ 1\n> \n< 200"),
        "Last-Modified in the future": not_stored("Last-Modified: {+100}"),
        "public makes others so": stored("Cache-Control: public", DATED, status=599),
        "of Date": not_stored("Last-Modified: {-50000}", "Date: {-40000}"),
        "with a query": "> /a?b\n< 200 | Last-Modified: {-100000}\n> /a?b\n= #1",
        "with a cookie set": not_stored(DATED, "Set-Cookie: a=b"),
        "with a disposition": stored(DATED, "Content-Disposition: attachment"),
        "not beside an invalid Expires": not_stored(DATED, "Expires: 0"),
    },
)

# Status codes with explicit freshness: RFC 9111 section 3.

EXPLICIT = (
    200, 201, 202, 203, 299, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 410, 429, 499, 500, 502, 503, 504, 599,
)  # fmt: skip
cases("status", {f"{status}, fresh": stored(FRESH, status=status, then=f"= #1 {status}") for status in EXPLICIT})
cases("status", {f"{status}, stale": f"> \n< {status} | {FRESH}\n+ 3600\n> \n< 200\n= #2" for status in EXPLICIT})
cases(
    "status",
    {
        "204": stored(FRESH, status=204, then="= 204 | -Content-Length"),
        **{
            f"{status} is for one": f"> | {line}\n< {status} | {FRESH}\n> \n< 200 | {FRESH}\n= #2"
            for status, line in [(412, 'If-Match: "a"'), (416, "Range: bytes=9-"), (417, "Expect: 100-continue")]
        },
        **{f"{status} of itself": stored(FRESH, status=status, then=f"= #1 {status}") for status in (412, 416, 417)},
        "206 that nobody asked for": not_stored(FRESH, "Content-Range: bytes 0-0/2", status=206),
        "redirects are stored as they are": stored(FRESH, "Location: /b", status=301, then="= #1 301 | Location: /b"),
    },
)

# Vary: RFC 9111 section 4.1.

VARY = f"{FRESH} | Vary: Foo"
cases(
    "vary",
    {
        "match": f"> | Foo: 1\n< 200 | {VARY}\n> | Foo: 1\n= #1",
        "no match": f"> | Foo: 1\n< 200 | {VARY}\n> | Foo: 2\n< 200\n= #2",
        "absent from the request": f"> | Foo: 1\n< 200 | {VARY}\n> \n< 200\n= #2",
        "absent from the first": f"> \n< 200 | {VARY}\n> | Foo: 1\n< 200\n= #2",
        "absent from both": f"> \n< 200 | {VARY}\n> \n= #1",
        "empty is not absent": f"> \n< 200 | {VARY}\n> | Foo: \n< 200\n= #2",
        "names without regard to case": f"> | Foo: 1\n< 200 | {FRESH} | Vary: foO\n> | FOO: 1\n= #1",
        "values with regard to case": f"> | Foo: a\n< 200 | {VARY}\n> | Foo: A\n< 200\n= #2",
        "several variants": f"> | Foo: 1\n< 200 | {VARY}\n> | Foo: 2\n< 200 | {VARY}\n> | Foo: 1\n= #1\n> | Foo: 2\n= #2",
        "a variant stays when another comes": f"> | Foo: 1\n< 200 | {VARY}\n> | Foo: 2\n< 200 | {VARY}\n> | Foo: 1\n= #1",
        "two names": f"> | Foo: 1 | Bar: a\n< 200 | {FRESH} | Vary: Foo, Bar\n> | Foo: 1 | Bar: a\n= #1",
        "two names, one differs": f"> | Foo: 1 | Bar: a\n< 200 | {FRESH} | Vary: Foo, Bar\n> | Foo: 1 | Bar: b\n"
        f"< 200\n= #2",
        "two names, one absent": f"> | Foo: 1 | Bar: a\n< 200 | {FRESH} | Vary: Foo, Bar\n> | Foo: 1\n< 200\n= #2",
        "three names": f"> | A: 1 | B: 2 | C: 3\n< 200 | {FRESH} | Vary: A, B, C\n> | C: 3 | B: 2 | A: 1\n= #1",
        "two lines of Vary": f"> | Foo: 1 | Bar: a\n< 200 | {FRESH} | Vary: Foo | Vary: Bar\n> | Foo: 1 | Bar: b\n"
        f"< 200\n= #2",
        "order of the names": f"> | A: 1 | B: 2\n< 200 | {FRESH} | Vary: A, B\n> | A: 2 | B: 2\n"
        f"< 200 | {FRESH} | Vary: B, A\n"
        "> | A: 1 | B: 2\n= #1",
        "spaces": f"> | Foo: 1,2\n< 200 | {VARY}\n> | Foo: 1, 2\n= #1",
        "lines combined": f"> | Foo: 1, 2\n< 200 | {VARY}\n> | Foo: 1 | Foo: 2\n= #1",
        "order of the values": f"> | Foo: 1, 2\n< 200 | {VARY}\n> | Foo: 2, 1\n< 200\n= #2",
        "languages in another order": f"> | Accept-Language: en, de\n< 200 | {FRESH} | Vary: Accept-Language\n"
        "> | Accept-Language: de, en\n= #1",
        "languages in another case": f"> | Accept-Language: en, de\n< 200 | {FRESH} | Vary: Accept-Language\n"
        "> | Accept-Language: eN, De\n= #1",
        "languages with spaces": f"> | Accept-Language: en,de\n< 200 | {FRESH} | Vary: Accept-Language\n"
        "> | Accept-Language:  en , de\n= #1",
        "star": f"> \n< 200 | {FRESH} | Vary: *\n> \n< 200\n= #2",
        "star and a name": f"> \n< 200 | {FRESH} | Vary: *, Foo\n> \n< 200\n= #2",
        "a name and star": f"> \n< 200 | {FRESH} | Vary: Foo, *\n> \n< 200\n= #2",
        "star and star": f"> \n< 200 | {FRESH} | Vary: *, *\n> \n< 200\n= #2",
        "star and star on two lines": f"> \n< 200 | {FRESH} | Vary: * | Vary: *\n> \n< 200\n= #2",
        "empty and star": f"> \n< 200 | {FRESH} | Vary: , *\n> \n< 200\n= #2",
        "empty and star on two lines": f"> \n< 200 | {FRESH} | Vary:  | Vary: *\n> \n< 200\n= #2",
        "a name and star on two lines": f"> \n< 200 | {FRESH} | Vary: Foo | Vary: *\n> \n< 200\n= #2",
        "empty members": f"> | Foo: 1\n< 200 | {FRESH} | Vary: , Foo,,\n> | Foo: 1\n= #1",
        "empty": f"> | Foo: 1\n< 200 | {FRESH} | Vary: \n> | Foo: 2\n= #1",
        "a change ends every variant": f"> | Foo: 1\n< 200 | {VARY}\n> | Foo: 2\n< 200 | {VARY}\n> POST\n< 200\n"
        "> | Foo: 1\n< 200\n= #4\n> | Foo: 2\n< 200\n= #5",
        "a 304 updates its own variant": f'> | Foo: 1\n< 200 | {VARY} | ETag: "a" | A: 1\n> | Foo: 2\n'
        f'< 200 | {VARY} | ETag: "b" | A: 1\n'
        f'+ 3600\n> | Foo: 1\n? If-None-Match: "a"\n< 304 | {FRESH} | ETag: "a" | A: 2\n= #1 | A: 2\n'
        "> | Foo: 2 | Cache-Control: max-stale\n= #2 | A: 1",
    },
)

# Conditions: RFC 9111 section 4.3, RFC 9110 section 13.

TAG = f'{FRESH} | ETag: "a"'
OLD = "Last-Modified: Sat, 05 Nov 1994 08:00:00 GMT"
AT = "Sat, 05 Nov 1994 08:00:00 GMT"
cases(
    "condition",
    {
        "If-None-Match": f'> \n< 200 | {TAG}\n> | If-None-Match: "a"\n= 304 | ETag: "a" | Cache-Control: max-age=3600',
        "If-None-Match of another": f'> \n< 200 | {TAG}\n> | If-None-Match: "b"\n= #1 200',
        "the first of several": f'> \n< 200 | {TAG}\n> | If-None-Match: "a", "b"\n= 304',
        "the second of several": f'> \n< 200 | {TAG}\n> | If-None-Match: "b", "a", "c"\n= 304',
        "the last of several": f'> \n< 200 | {TAG}\n> | If-None-Match: "b", "a"\n= 304',
        "on two lines": f'> \n< 200 | {TAG}\n> | If-None-Match: "b" | If-None-Match: "a"\n= 304',
        "star": f"> \n< 200 | {TAG}\n> | If-None-Match: *\n= 304",
        "weak for strong": f'> \n< 200 | {TAG}\n> | If-None-Match: W/"a"\n= 304',
        "strong for weak": f'> \n< 200 | {FRESH} | ETag: W/"a"\n> | If-None-Match: "a"\n= 304',
        "lower-case w": f'> \n< 200 | {FRESH} | ETag: "a"\n> | If-None-Match: w/"a"\n= #1 200',
        "no slash": f'> \n< 200 | {FRESH} | ETag: "a"\n> | If-None-Match: W"a"\n= #1 200',
        "a backslash": f'> \n< 200 | {FRESH} | ETag: W/"a"\n> | If-None-Match: W\\"a"\n= #1 200',
        "before If-Modified-Since": f'> \n< 200 | {TAG} | {OLD}\n> | If-None-Match: "b" | If-Modified-Since: {AT}\n'
        f'= #1 200',
        "before If-Modified-Since, 304": f'> \n< 200 | {TAG} | {OLD}\n'
        f'> | If-None-Match: "a" | If-Modified-Since: Fri, 04 Nov 1994 08:00:00 GMT\n= 304',
        "If-Modified-Since": f"> \n< 200 | {FRESH} | {OLD}\n> | If-Modified-Since: {AT}\n= 304",
        "If-Modified-Since later": f"> \n< 200 | {FRESH} | {OLD}\n"
        f"> | If-Modified-Since: Sat, 05 Nov 1994 09:00:00 GMT\n= 304",
        "If-Modified-Since earlier": f"> \n< 200 | {FRESH} | {OLD}\n"
        f"> | If-Modified-Since: Sat, 05 Nov 1994 07:00:00 GMT\n= #1 200",
        "If-Modified-Since, RFC 850": f"> \n< 200 | {FRESH} | {OLD}\n"
        f"> | If-Modified-Since: Saturday, 05-Nov-94 08:00:00 GMT\n= 304",
        "If-Modified-Since, no date": f"> \n< 200 | {FRESH} | {OLD}\n> | If-Modified-Since: yesterday\n= #1 200",
        "If-Modified-Since against Date": f"> \n< 200 | {FRESH}\n> | If-Modified-Since: {{+1}}\n= 304",
        "goes on where nothing is stored": '> | If-None-Match: "a"\n? If-None-Match: "a"\n< 304 | ETag: "a"\n'
        '= 304 | ETag: "a"',
        "unquoted goes on too": "> | If-None-Match: a\n? If-None-Match: a\n< 200\n= #1",
        "If-Modified-Since goes on": f"> | If-Modified-Since: {AT}\n? If-Modified-Since: {AT}\n< 304\n= 304",
        "generated from an ETag": f'> \n< 200 | {TAG}\n+ 3600\n> \n? If-None-Match: "a" | -If-Modified-Since\n'
        f'< 304 | {TAG}\n= #1 200',
        "generated from a weak one": f'> \n< 200 | {FRESH} | ETag: W/"a"\n+ 3600\n> \n? If-None-Match: W/"a"\n'
        f'< 304 | {FRESH} | ETag: W/"a"\n= #1',
        "generated from an unquoted one": f"> \n< 200 | {FRESH} | ETag: a\n+ 3600\n> \n? If-None-Match: a\n"
        f"< 304 | {FRESH} | ETag: a\n= #1",
        "generated from Last-Modified": f"> \n< 200 | {FRESH} | {OLD}\n+ 3600\n> \n"
        f"? If-Modified-Since: {AT} | -If-None-Match\n< 304\n= #1",
        "generated from both": f'> \n< 200 | {TAG} | {OLD}\n+ 3600\n> \n'
        f'? If-Modified-Since: {AT} | If-None-Match: "a"\n< 304\n= #1',
        "with the tags of all variants": f'> | Foo: 1\n< 200 | {TAG} | Vary: Foo\n> | Foo: 2\n'
        f'< 200 | {FRESH} | ETag: "b" | Vary: Foo\n'
        '+ 3600\n> | Foo: 1\n? If-None-Match: "a"\n< 304 | ETag: "a"\n= #1',
        "If-Match is the origin's": f'> \n< 200 | {TAG}\n> | If-Match: "a"\n? If-Match: "a"\n< 412\n= 412',
        "If-Unmodified-Since is the origin's": f"> \n< 200 | {TAG}\n> | If-Unmodified-Since: {AT}\n"
        f"? If-Unmodified-Since: {AT}\n< 200\n= #2",
        "not for errors": f'> \n< 404 | {TAG}\n> | If-None-Match: "a"\n= 404 #1',
        "of HEAD": f'> \n< 200 | {TAG}\n> HEAD | If-None-Match: "a"\n= 304',
    },
)

# What a 304 changes: RFC 9111 sections 3.2 and 4.3.4.

UPDATED = {
    "Cache-Control": ("max-age=3600", "max-age=5000"), "Content-Foo": ("1", "2"), "Content-Location": ("/a", "/b"),
    "Content-Security-Policy": ("default-src a", "default-src b"), "Content-Type": ("text/plain", "text/html"),
    "ETag": ('"a"', '"a"'), "Expires": ("Sun, 06 Nov 1994 11:00:00 GMT", "Sun, 06 Nov 1994 23:00:00 GMT"),
    "Test-Header": ("1", "2"), "X-Content-Foo": ("1", "2"), "X-Frame-Options": ("DENY", "SAMEORIGIN"),
    "Set-Cookie": ("a=1", "a=2"),
    "Content-Encoding": ("foo", "foo"), "Content-MD5": ("a", "b"), "Clear-Site-Data": ('"cache"', '"cookies"'),
    "Public-Key-Pins": ("a", "b"), "Server": ("a", "b"), "Link": ("</a>", "</b>"), "Warning": ("a", "b"),
    "X-XSS-Protection": ("0", "1"), "Access-Control-Allow-Origin": ("a", "b"), "Strict-Transport-Security": ("a", "b"),
}  # fmt: skip
for name, (before, after) in UPDATED.items():
    first = "" if name == "ETag" else ' | ETag: "a"'
    second = "" if name == "ETag" else ' | ETag: "a"'
    fresh = "" if name == "Cache-Control" else " | Cache-Control: max-age=3600"
    cases(
        "update",
        {
            name: f"> \n< 200 | {name}: {before}{first}{fresh}\n+ 3600\n> \n< 304 | {name}: {after}{second}{fresh}\n"
            f"= #1 200 | {name}: {after}\n> \n= #1 | {name}: {after}"
        },
    )
cases(
    "update",
    {
        "what the 304 does not say stays": f"> \n< 200 | {TAG} | A: 1\n+ 3600\n> \n< 304 | {TAG}\n= #1 | A: 1\n> \n"
        f"= #1 | A: 1",
        "Content-Length": f"> \n< 200 | {TAG}\n+ 3600\n> \n< 304 | {TAG} | Content-Length: 10\n= #1 | Content-Length: 1",
        "Connection's": f"> \n< 200 | {TAG}\n+ 3600\n> \n< 304 | {TAG} | Connection: foo | Foo: 1\n= #1 | -Foo",
        "makes it fresh again": f"> \n< 200 | {TAG}\n+ 3600\n> \n< 304 | {TAG}\n= #1\n+ 3599\n> \n= #1\n+ 1\n> \n"
        f"< 200\n= #3",
        "by Last-Modified": f"> \n< 200 | {FRESH} | {OLD}\n+ 3600\n> \n< 304 | {FRESH} | {OLD} | A: 2\n= #1 | A: 2\n"
        f"> \n= #1 | A: 2",
        "no validator in the 304": f"> \n< 200 | {TAG}\n+ 3600\n> \n< 304 | {FRESH} | A: 2\n= #1 | A: 2\n> \n= #1",
        "another tag in the 304": f'> \n< 200 | {TAG}\n+ 3600\n> \n< 304 | {FRESH} | ETag: "b"\n? -If-None-Match\n'
        f'< 200\n= #3',
        "another tag in the 304, beside the client's": f"> \n< 200 | {TAG}\n"
        f'> | Cache-Control: no-cache | If-None-Match: "c"\n? If-None-Match: "a", "c"\n< 304 | {FRESH} | ETag: "z"\n'
        "? -If-None-Match\n< 200\n= 200 #3",
        "a 200 replaces it": f"> \n< 200 | {TAG} | A: 1\n+ 3600\n> \n< 200 | {FRESH} | B: 2\n= #2\n> \n= #2 | -A | B: 2",
        "a 404 replaces it": f"> \n< 200 | {TAG}\n+ 3600\n> \n< 404 | {FRESH}\n= #2 404\n> \n= #2 404",
        "the Age begins anew": f"> \n< 200 | {TAG} | Age: 9\n+ 3600\n> \n< 304 | {TAG}\n= #1\n+ 2\n> \n= #1 | Age: 2",
    },
)

# HEAD: RFC 9111 section 4.3.5, RFC 9110 section 9.3.2.

cases(
    "HEAD",
    {
        "is answered from what GET stored": f"> \n< 200 | {TAG} | A: 1\n> HEAD\n= 200 | A: 1 | Content-Length: 1",
        "freshens": f"> \n< 200 | {TAG} | Content-Length: 1\n+ 3600\n> HEAD\n< 200 | {TAG} | A: 2\n> \n= #1 | A: 2",
        "that differs ends it": f'> \n< 200 | {TAG}\n+ 3600\n> HEAD\n< 200 | {FRESH} | ETag: "b"\n> \n< 200\n= #3',
        "is stored": f"> HEAD\n< 200 | {TAG} | A: 1 | Body: four\n"
        f"= 200 | Cache-Status: reactor; fwd=uri-miss; stored; ttl=3600\n> HEAD\n"
        "= 200 | A: 1 | Content-Length: 4 | Cache-Status: reactor; hit; ttl=3600",
        "is stored for HEAD alone": f"> HEAD\n< 200 | {TAG}\n> \n< 200 | {TAG}\n= #2\n> HEAD\n= 200",
        "is stored without being fresh": f"> HEAD\n< 200 | {TAG}\n+ 3600\n> HEAD\n< 200 | {TAG} | A: 2\n> HEAD\n"
        f"= 200 | A: 2",
        "with conditions": f'> HEAD\n< 200 | {TAG}\n> HEAD | If-None-Match: "a"\n= 304 | -Content-Length',
        "with Range": f"> HEAD\n< 200 | {TAG}\n> HEAD | Range: bytes=0-0\n= 200",
        "no-store": f"> HEAD\n< 200 | {FRESH}, no-store\n> HEAD\n< 200",
        "by Vary": f"> HEAD | Foo: 1\n< 200 | {VARY}\n> HEAD | Foo: 2\n< 200 | {VARY}\n> HEAD | Foo: 1\n= 200",
        "of an error": f"> HEAD\n< 404 | {FRESH}\n> HEAD\n= 404\n> \n< 200 | {FRESH}\n> HEAD\n= 200",
        "ends with a change": f"> HEAD\n< 200 | {TAG}\n> POST\n< 200\n> HEAD\n< 200",
        "that says 410": f"> \n< 200 | {TAG}\n+ 3600\n> HEAD\n< 410 | {FRESH}\n> \n< 200",
    },
)

# Invalidation: RFC 9111 section 4.4.

cases(
    "invalidation",
    {
        **{method: f"> \n< 200 | {FRESH}\n> {method}\n< 200\n> \n< 200\n"
        f"= #3" for method in ("POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FOO")},
        **{f"{method} that failed": f"> \n< 200 | {FRESH}\n> {method}\n< 500\n> \n"
        f"= #1" for method in ("POST", "PUT", "DELETE", "FOO")},
        **{f"{method} of 4xx": f"> \n< 200 | {FRESH}\n> {method}\n< 409\n> \n= #1" for method in ("POST", "DELETE")},
        "a redirect": f"> \n< 200 | {FRESH}\n> POST\n< 303 | Location: /x\n> \n< 200\n= #3",
        **{
            f"{method} by {name}": f"> /a\n< 200 | {FRESH}\n> {method} /b\n< 201 | {name}: /a\n> /a\n< 200\n= #3"
            for method in ("POST", "PUT", "DELETE", "FOO") for name in ("Location", "Content-Location")
        },
        "by a relative Location": f"> /a/b\n< 200 | {FRESH}\n> POST /a/c\n< 201 | Location: b\n> /a/b\n< 200\n= #3",
        "not of another host": f"> /a\n< 200 | {FRESH}\n> POST /b\n< 201 | Location: http://example.com/a\n> /a\n= #1",
        "not of another path": f"> /a\n< 200 | {FRESH}\n> POST /b\n< 200\n> /a\n= #1",
        "not with another query": f"> /a?1\n< 200 | {FRESH}\n> POST /a?2\n< 200\n> /a?1\n= #1",
        "safe methods change nothing": f"> \n< 200 | {FRESH}\n> OPTIONS\n< 200\n> \n= #1",
        "a group": f'> /a\n< 200 | {FRESH} | Cache-Groups: "g", "h"\n> POST /b\n'
        f'< 200 | Cache-Group-Invalidation: "h"\n> /a\n< 200\n= #3',
        "another group": f'> /a\n< 200 | {FRESH} | Cache-Groups: "g"\n> POST /b\n'
        f'< 200 | Cache-Group-Invalidation: "h"\n> /a\n= #1',
        "groups in another case": f'> /a\n< 200 | {FRESH} | Cache-Groups: "g"\n> POST /b\n'
        f'< 200 | Cache-Group-Invalidation: "G"\n> /a\n= #1',
        "a group by a safe method": f'> /a\n< 200 | {FRESH} | Cache-Groups: "g"\n> /b\n'
        f'< 200 | Cache-Group-Invalidation: "g"\n> /a\n= #1',
    },
)

# POST: RFC 9110 section 9.3.3.

POSTED = f"{FRESH} | Content-Location: /a"
cases(
    "POST",
    {
        "that is what GET brings": f"> POST /a\n< 200 | {POSTED}\n= #1\n> /a\n= #1\n> HEAD /a\n= 200",
        "is not answered from the store": f"> POST /a\n< 200 | {POSTED}\n> POST /a\n< 200 | {POSTED}\n= #2\n> /a\n= #2",
        "without Content-Location": f"> POST /a\n< 200 | {FRESH}\n> /a\n< 200",
        "of another place": f"> POST /a\n< 200 | {FRESH} | Content-Location: /b\n> /a\n< 200\n= #2\n> /b\n< 200\n= #3",
        "without freshness": f"> POST /a\n< 200 | {DATED} | Content-Location: /a\n> /a\n< 200",
        "private": f"> POST /a\n< 200 | {POSTED} | Cache-Control: private\n> /a\n< 200",
        "in place of what was": f"> /a\n< 200 | {FRESH}\n> POST /a\n< 200 | {POSTED}\n> /a\n= #2",
        "goes stale": f"> POST /a\n< 200 | {POSTED}\n+ 3600\n> /a\n< 200\n= #2",
        "that failed": "> POST /a\n< close\n= 502 | -Cache-Status",
    },
)

# Authorization: RFC 9111 section 3.5.

cases(
    "authorization",
    {
        "is stored for nobody": f"> | Authorization: a\n< 200 | {FRESH}\n> | Authorization: a\n< 200\n= #2",
        "public": "> | Authorization: a\n< 200 | Cache-Control: max-age=3600, public\n> | Authorization: b\n= #1",
        "must-revalidate": "> | Authorization: a\n< 200 | Cache-Control: max-age=3600, must-revalidate\n"
        "> | Authorization: b\n= #1",
        "s-maxage": "> | Authorization: a\n< 200 | Cache-Control: s-maxage=3600\n> | Authorization: b\n= #1",
        "what is stored serves who is authorized": f"> \n< 200 | {FRESH}\n> | Authorization: a\n= #1",
    },
)

# Stale responses: RFC 9111 section 4.2.4, RFC 5861.

SWR = "Cache-Control: max-age=1, stale-while-revalidate=3600"
SIE = "Cache-Control: max-age=1, stale-if-error=3600"
cases(
    "stale",
    {
        "while revalidate, beyond its window": "> \n< 200 | Cache-Control: max-age=1, stale-while-revalidate=2\n+ 4\n"
        "> \n< 200\n= #2",
        "if error": f"> \n< 200 | {SIE}\n+ 2\n> \n< 503\n= #1 200",
        "if error, 500": f"> \n< 200 | {SIE}\n+ 2\n> \n< 500\n= #1 200",
        "if error, 502": f"> \n< 200 | {SIE}\n+ 2\n> \n< 502\n= #1 200",
        "if error, 504": f"> \n< 200 | {SIE}\n+ 2\n> \n< 504\n= #1 200",
        "if error, not 404": f"> \n< 200 | {SIE}\n+ 2\n> \n< 404\n= #2 404",
        "if error, not 501": f"> \n< 200 | {SIE}\n+ 2\n> \n< 501\n= #2 501",
        "if error, beyond its window": "> \n< 200 | Cache-Control: max-age=1, stale-if-error=2\n+ 4\n> \n< 503\n= #2 503",
        "if error, hung up": f"> \n< 200 | {SIE}\n+ 2\n> \n< close\n= #1 200",
        "if error, by the request": '> \n< 200 | Cache-Control: max-age=1 | ETag: "a"\n+ 2\n'
        "> | Cache-Control: stale-if-error=60\n< 503\n= #1 200",
        "503 otherwise": '> \n< 200 | Cache-Control: max-age=1 | ETag: "a"\n+ 2\n> \n< 503\n= #2 503',
        "hung up otherwise": '> \n< 200 | Cache-Control: max-age=1 | ETag: "a"\n+ 2\n> \n< close\n= #1 200',
        **{
            f"hung up, {directive}": f'> \n< 200 | Cache-Control: max-age=1, {directive} | ETag: "a"\n+ 2\n> \n'
            f'< close\n= 504'
            for directive in ("must-revalidate", "proxy-revalidate", "s-maxage=1", "no-cache")
        },
        **{
            f"503, {directive}": f'> \n< 200 | Cache-Control: max-age=1, {directive}, stale-if-error=60 | ETag: "a"\n'
            f'+ 2\n> \n< 503\n= #2 503'
            for directive in ("must-revalidate", "proxy-revalidate", "s-maxage=1", "no-cache")
        },
    },
)

# What is stored of a head, and what is not: RFC 9111 section 3.1.

KEPT = [
    "Test: 1", "Set-Cookie: a=b", "Content-Encoding: foo", "Content-Type: text/foo", "Content-Foo: 1", "X-Foo: 1",
    "Content-MD5: a", "Content-Location: /a", "Server: s", "Link: </a>", "Alt-Svc: a", "Strict-Transport-Security: a",
    "WWW-Authenticate: a", "Retry-After: 1", "Accept-Ranges: none", "Refresh: 1", "Authentication-Info: a",
    "Proxy-Foo: 1", "SourceMap: a", "CDN-Cache-Control: max-age=9", "Surrogate-Control: a", "P3P: a", "Allow: GET",
    "Location: /b",
]  # fmt: skip
DROPPED = [
    "Keep-Alive: timeout=1", "Proxy-Authenticate: a", "Proxy-Authentication-Info: a", "Proxy-Authorization: a",
    "Proxy-Connection: a", "TE: a", "Upgrade: a",
]  # fmt: skip
cases("headers", {f"kept: {line}": stored(FRESH, line, then=f"= #1 | {line}") for line in KEPT})
cases("headers", {f"dropped: {line}": stored(FRESH, line, then="= #1 | -" + line.partition(":")[0]) for line in DROPPED})
cases(
    "headers",
    {
        "named by Connection": stored(FRESH, "Connection: a, B", "A: 1", "B: 2", "C: 3", then="= #1 | -A | -B | C: 3"),
        "no Date is given one": stored(FRESH, "Date: none", then="= #1 | Date: Sun, 06 Nov 1994 08:49:37 GMT"),
        "cookies of requests are no key": f"> | Cookie: a\n< 200 | {FRESH}\n> | Cookie: b\n= #1",
        "a cookie that is set with freshness": stored(FRESH, "Set-Cookie: a=b", then="= #1 | Set-Cookie: a=b"),
        "fields of several lines": stored(FRESH, "A: 1", "A: 2", then="= #1 | A: 1, 2"),
    },
)

# Targeted fields: RFC 9213.

cases(
    "targeted",
    {
        "max-age": stored("CDN-Cache-Control: max-age=3600"),
        "max-age beside Expires": stored("CDN-Cache-Control: max-age=3600", "Expires: {-100}"),
        "max-age=0 beside Expires": not_stored("CDN-Cache-Control: max-age=0", "Expires: {+100}"),
        "max-age and Age": not_stored("CDN-Cache-Control: max-age=3600", "Age: 12000"),
        "unknown members": stored("CDN-Cache-Control: foobar, max-age=3600, foo=bar"),
        "private": not_stored("CDN-Cache-Control: max-age=3600, private"),
        "no-store": not_stored("CDN-Cache-Control: no-store", FRESH),
        "no-cache": not_stored("CDN-Cache-Control: no-cache", FRESH),
        "fresh beside no-store": stored("CDN-Cache-Control: max-age=3600", "Cache-Control: no-store"),
        "fresh beside stale": stored("CDN-Cache-Control: max-age=3600", "Cache-Control: max-age=0"),
        "stale beside fresh": not_stored("CDN-Cache-Control: max-age=0", FRESH),
        "the last of two members": stored("CDN-Cache-Control: max-age=0, max-age=3600"),
        "upper case is no key": stored("CDN-Cache-Control: MAX-AGE=0", FRESH),
        "unreadable is ignored": stored("CDN-Cache-Control: max-age=0, &&&", FRESH),
        "unreadable beside no-store": not_stored("CDN-Cache-Control: max-age=3600, &&&", "Cache-Control: no-store"),
        "empty is ignored": stored("CDN-Cache-Control: ", FRESH),
        "a string for a number": not_stored('CDN-Cache-Control: max-age="3600"'),
        "a decimal": not_stored("CDN-Cache-Control: max-age=3600.0"),
        "negative": not_stored("CDN-Cache-Control: max-age=-1"),
        "parameters are ignored": stored("CDN-Cache-Control: max-age=3600;foo=1"),
        "it is passed on": "> \n< 200 | CDN-Cache-Control: max-age=3600\n= #1 | CDN-Cache-Control: max-age=3600",
    },
)


# Parts: RFC 9111 sections 3.3 and 3.4, RFC 9110 sections 14 and 15.3.7. The whole is 0123456789.

WHOLE = f'> \n< 200 | {TAG} | Body: 0123456789'


def part(first: int, last: int, *more: str, asked: str = "", complete: str = "10", lines: str = TAG) -> str:
    """A range request that goes to the origin, and its answer."""
    asked = f"Range: bytes={asked or f'{first}-{last}'}"
    place = f"Content-Range: bytes {first}-{last}/{complete}"
    answer = f"< 206 | {lines} | {place} | Body: {'0123456789'[first : last + 1]}"
    return "\n".join([" | ".join([">", asked, *more]), f"? {asked}", answer, f"= 206 | {place}"])


def has(asked: str, first: int, last: int, complete: str = "10", *more: str) -> str:
    """A range request that is answered from the store."""
    got = f"= 206 {'0123456789'[first : last + 1]!r} | Content-Range: bytes {first}-{last}/{complete}"
    return "\n".join([" | ".join([">", f"Range: bytes={asked}", *more]), got])


cases(
    "parts",
    {
        "of the whole": "\n".join([WHOLE, has("2-4", 2, 4), has("5-", 5, 9), has("-1", 9, 9), has("0-99", 0, 9)]),
        "beyond the whole": f"{WHOLE}\n> | Range: bytes=10-\n= 416 | Content-Range: bytes */10",
        "of another unit": f"{WHOLE}\n> | Range: lines=1-2\n= 200 #1",
        "If-Range": "\n".join([WHOLE, has("2-4", 2, 4, "10", 'If-Range: "a"')]),
        "If-Range of another": f'{WHOLE}\n> | Range: bytes=2-4 | If-Range: "b"\n= 200 #1',
        "stored, and asked again": "\n".join([part(2, 5), has("2-5", 2, 5)]),
        "within what is stored": "\n".join([part(2, 5), has("3-4", 3, 4), has("2-2", 2, 2), has("5-5", 5, 5)]),
        "beyond what is stored": "\n".join([part(2, 5), part(1, 5), part(5, 6)]),
        "the end of what is stored": "\n".join([part(5, 9, asked="5-"), has("5-", 5, 9), has("-3", 7, 9), has("7-", 7, 9)]),
        "the end of what is not": "\n".join([part(2, 5), part(5, 9, asked="5-")]),
        "stored are not the whole": "\n".join([part(2, 5), "> \n? -Range\n< 200\n= 200 #2"]),
        "that are shorter than they say": "\n".join([
            f"> | Range: bytes=-5\n< 206 | {TAG} | Content-Range: bytes 5-9/10 | Body: 567\n= 206 #1",
            has("6-7", 6, 7), part(6, 8), part(8, 9)]),
        "that are longer than they say": "\n".join([
            f"> | Range: bytes=5-6\n< 206 | {TAG} | Content-Range: bytes 5-6/10 | Body: 567\n= 206 #1", part(5, 6)]),
        "that say they are all": f"> | Range: bytes=0-\n< 206 | {TAG} | Content-Range: bytes 0-9/10 | Body: 012\n= 206 #1\n"
        f"> \n? Range: bytes=3-\n< 206 | {TAG} | Content-Range: bytes 3-9/10 | Body: 3456789\n= 200 '0123456789'",
        "of less than was asked for": f"> | Range: bytes=2-8\n< 206 | {TAG} | Content-Range: bytes 2-5/10 | Body: 2345\n"
        "= 206 #1 | Content-Range: bytes 2-5/10\n" + has("2-5", 2, 5),
        "completed": "\n".join([
            part(0, 5), '> \n? Range: bytes=6- | If-Range: "a"',
            f"< 206 | {TAG} | A: 1 | Content-Range: bytes 6-9/10 | Body: 6789",
            "= 200 '0123456789' | A: 1 | Age: 0 | -Content-Range "
            "| Cache-Status: reactor; fwd=partial; fwd-status=206; stored; ttl=3600",
            "> \n= 200 '0123456789'", has("4-7", 4, 7),
        ]),
        "completed though stale": "\n".join([
            part(0, 5), '+ 3600\n> \n? Range: bytes=6- | If-Range: "a"',
            f"< 206 | {TAG} | Content-Range: bytes 6-9/10 | Body: 6789",
            "= 200 '0123456789'\n> \n= 200 '0123456789' | Age: 0",
        ]),
        "not completed, but replaced": "\n".join([
            part(0, 5), f'> \n? Range: bytes=6-\n< 200 | {FRESH} | ETag: "b" | Body: abcdefghij',
            "= 200 #2 | Cache-Status: reactor; fwd=partial; stored; ttl=3600\n> \n= 200 #2"
        ]),
        "not completed by another": "\n".join([
            part(0, 5), f'> \n? Range: bytes=6-\n< 206 | {FRESH} | ETag: "b" | Content-Range: bytes 6-9/10 | Body: ghij',
            f"? -Range | -If-Range\n< 200 | {FRESH} | Body: abcdefghij\n= 200 #3\n> \n= 200 #3",
        ]),
        "not completed by less": "\n".join([
            part(0, 5), f"> \n? Range: bytes=6-\n< 206 | {TAG} | Content-Range: bytes 6-8/10 | Body: 678",
            "? -Range\n< 200\n= 200 #3",
        ]),
        "not completed by what overlaps": "\n".join([
            part(0, 5), f"> \n? Range: bytes=6-\n< 206 | {TAG} | Content-Range: bytes 5-9/10 | Body: 56789",
            "? -Range\n< 200\n= 200 #3",
        ]),
        "not completed with 416": "\n".join([part(0, 5), "> \n? Range: bytes=6-\n< 416\n? -Range\n< 200\n= 200 #3"]),
        "not completed beside conditions": "\n".join([
            part(0, 5), '> | If-None-Match: "b" | Cache-Control: no-cache\n? -Range | If-None-Match: "b"\n< 200\n= 200 #2'
        ]),
        "not completed with a weak tag": "\n".join([
            part(0, 5, lines=f'{FRESH} | ETag: W/"a"'), "> \n? -Range\n< 200\n= 200 #2"
        ]),
        "of all of it are the whole": "\n".join([part(0, 9, asked="0-"), "> \n"
        "= 200 #1 | -Content-Range", has("3-4", 3, 4)]),
        "that touch are one": "\n".join([part(2, 5), part(6, 8), has("4-7", 4, 7), has("2-8", 2, 8)]),
        "that touch in front": "\n".join([part(6, 8), part(2, 5), has("4-7", 4, 7), has("2-8", 2, 8)]),
        "that overlap": "\n".join([part(2, 6), part(4, 8), has("2-8", 2, 8)]),
        "that fill the gap": "\n".join([part(0, 3), part(6, 9), part(2, 7), "> \n= 200 '0123456789'", has("-4", 6, 9)]),
        "with a gap": "\n".join([part(0, 3), part(6, 9), has("1-2", 1, 2), has("7-8", 7, 8), part(3, 6, asked="3-6")]),
        "that are the whole together": "\n".join([part(0, 4), part(5, 9), "> \n= 200 '0123456789' | -Content-Range"]),
        "with the fields of the last": "\n".join([
            part(0, 4, lines=TAG + " | A: 1 | B: 1"), part(5, 9, lines=TAG + " | A: 2"), "> \n= 200 | A: 2 | B: 1"
        ]),
        "of another representation": "\n".join([
            part(0, 4), part(5, 9, lines=f'{FRESH} | ETag: "b"'), has("6-7", 6, 7), part(0, 4, lines=f'{FRESH} | ETag: "b"')
        ]),
        "with weak tags stay apart": "\n".join([
            part(0, 4, lines=f'{FRESH} | ETag: W/"a"'), part(5, 9, lines=f'{FRESH} | ETag: W/"a"'), has("1-2", 1, 2),
            has("5-6", 5, 6), "> \n< 200",
        ]),
        "without validators": "\n".join([
            part(0, 4, lines=FRESH), has("1-2", 1, 2), part(5, 9, lines=FRESH), has("5-6", 5, 6)
        ]),
        "of unknown length": "\n".join([part(2, 5, complete="*"), has("3-4", 3, 4, "*"), part(5, 9, asked="-5")]),
        "with If-Range": "\n".join([part(2, 5, 'If-Range: "a"'), has("3-4", 3, 4, "10", 'If-Range: "a"')]),
        "with If-Range of another": "\n".join([part(2, 5), '> | Range: bytes=3-4 | If-Range: "b"\n? If-Range: "b"\n'
        '< 200\n= 200 #2']),
        "several at once are not stored": '> | Range: bytes=0-0,2-2\n'
        '< 206 | Content-Type: multipart/byteranges; boundary=x | '
        f"{FRESH} | Body: x\n= 206 #1\n> | Range: bytes=0-0\n< 206",
        "where the origin ignores ranges": f"> | Range: bytes=2-3\n< 200 | {TAG} | Body: 0123456789\n= 206 '23'\n> \n"
        f"= 200 #1",
        "stale, validated": "\n".join([
            part(2, 5), f'+ 3600\n> | Range: bytes=3-4 | If-Range: "a"\n'
            f'? Range: bytes=3-4 | If-None-Match: "a" | If-Range: "a"\n< 304 | {TAG}'
            "\n= 206 '34' | Content-Range: bytes 3-4/10", has("2-3", 2, 3),
        ]),
        "stale, replaced": "\n".join([
            part(2, 5), f"+ 3600\n> | Range: bytes=3-4\n< 200 | {FRESH} | ETag: \"b\" | Body: abcdefghij\n= 206 'de'\n"
            f"> \n= 200 #2"
        ]),
        "no-store": "\n".join([part(2, 5, lines=f'{FRESH}, no-store | ETag: "a"'), part(2, 5)]),
        "Vary": "\n".join([
            part(2, 5, "Foo: 1", lines=TAG + " | Vary: Foo"), part(2, 5, "Foo: 2", lines=TAG + " | Vary: Foo"),
            has("3-4", 3, 4, "10", "Foo: 1"), part(6, 7, "Foo: 2", lines=TAG + " | Vary: Foo"),
            part(5, 6, "Foo: 1", lines=TAG + " | Vary: Foo"),
        ]),
        "conditions": "\n".join([part(2, 5), '> | Range: bytes=3-4 | If-None-Match: "a"\n= 304']),
        "an unsafe method ends them": "\n".join([part(2, 5), "> POST\n< 200", part(2, 5)]),
        "a HEAD that agrees freshens them": "\n".join([
            part(2, 5), f"+ 3600\n> HEAD\n< 200 | {TAG} | Body: 0123456789", has("3-4", 3, 4)
        ]),
    },
)


@pytest.mark.parametrize("text", list(CASES.values()), ids=list(CASES))
def test_dialogue(house: House, text: str) -> None:
    Dialogue(house).play(text)

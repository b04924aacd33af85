"""A user's own program between the access rules and the cache: hooks `request` and `response` in a file.

    state of an exchange   on                                   → state
    request                the hook is over                     → forwarded, or answered by the script
    request, response      the hook awaits, or delays           → the same, when the loop calls again
    request, response      the hook raises                      → answered with 500; 4xx or 502 for a body it cannot have
    forwarded              a response                           → response (where there is such a hook), else answered
    response               the hook is over                     → answered
    any                    the client leaves                    → over (what the hook awaits is given up)

What the hooks are given is in traffic.py. An exchange that no hook changes, and whose script has no `response`, goes to the
handler behind as it came, so that stored heads and files are sent as without a script.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from handlers.messages import BodyError
from handlers.script_file import Hooks, ScriptFile
from handlers.traffic import ScriptResponse, Traffic
from handlers.waits import Wait
from reactor.errors import RAISED, ReactorError
from reactor.exchange import Body, DerivedExchange, Exchange, Handler, Head, error_page
from reactor.loop import Timer

log = logging.getLogger("handlers.script")

LOOK_SECONDS = 1.0  # the file is looked at again at most so often, and only when there is traffic


class Script:
    """Runs the hooks of a file around a handler."""

    def __init__(self, handler: Handler, file: ScriptFile) -> None:
        self.handler = handler
        self.file = file
        self._look_at = 0.0

    def handle(self, exchange: Exchange) -> None:
        now = exchange.reactor.now
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self.file.look_again()
        hooks = self.file.hooks
        if hooks.request is None and hooks.response is None:
            self.handler.handle(exchange)
            return
        traffic = Traffic(exchange)
        pending = None
        if hooks.request is not None:
            try:
                pending = hooks.request(traffic)
            except RAISED as error:  # costs its own exchange alone
                self.failed(exchange, error)
                return
        if pending is None and hooks.response is None and not traffic._spoke():
            self.handler.handle(exchange)
        else:
            _Run(self, hooks, traffic, exchange).begin(pending)

    def failed(self, exchange: Exchange, error: BaseException) -> None:
        """A hook raised: what it could not have of a body is the sender's fault, anything else the script's."""
        status = 500
        if isinstance(error, BodyError):
            exchange.error = error
            status = error.status
        else:
            log.error("script %s: a hook raised for %r", self.file.path, exchange.request, exc_info=error)
            exchange.error = ReactorError("the script failed")
        exchange.verdict = exchange.verdict or "script"
        exchange.respond(*error_page(status, str(exchange.error)))


class _Run:
    """One exchange that takes more than a look: a hook that waits, a request that was changed, a response to look at."""

    __slots__ = ("_script", "_hooks", "_traffic", "_exchange", "_hook", "_then", "_wait", "_response", "_inner")

    def __init__(self, script: Script, hooks: Hooks, traffic: Traffic, exchange: Exchange) -> None:
        self._script = script
        self._hooks = hooks
        self._traffic = traffic
        self._exchange = exchange
        self._hook: Coroutine[Wait, None, None] | None = None  # one that waits
        self._then: Callable[[], object] | None = None  # what comes after it
        self._wait: Wait | Timer | None = None
        self._response: ScriptResponse | None = None  # not given to the client yet
        self._inner: DerivedExchange | None = None  # not answered yet
        exchange.on_end(self._ended, first=True)  # before the log, which is to know what it had come to

    def begin(self, pending: Any) -> None:
        """`pending` is what the request hook returned."""
        self._go_through(pending, self._forward)

    # Hooks.

    def _go_through(self, pending: Any, then: Callable[[], object]) -> None:
        """See a hook to its end, then call."""
        self._then = then
        if pending is None:
            self._hook_over()
        elif isinstance(pending, Coroutine):
            self._hook = pending
            self._step()
        else:
            returned = type(pending).__name__
            self._fail(TypeError(f"a hook returns nothing, or is an `async def`; this one returned {returned}"))

    def _step(self) -> None:
        """Let the hook run to its next wait, or its end."""
        hook, error = self._hook, None
        assert hook is not None
        self._wait = None
        try:
            while True:
                wait = hook.send(None) if error is None else hook.throw(error)
                error = None
                if not isinstance(wait, Wait):
                    error = TypeError("only what the exchange offers can be awaited in a hook")
                elif not wait.start(self._step_later):
                    self._wait = wait
                    return
        except StopIteration:
            self._hook = None
        except RAISED as raised:
            self._hook = None
            self._fail(raised)
            return
        self._hook_over()

    def _step_later(self) -> None:
        if self._hook is not None:
            self._guarded(self._step)

    def _hook_over(self) -> None:
        """The hook is over; what it said to wait for without awaiting it comes now."""
        traffic = self._traffic
        seconds = sum(delay.seconds for delay in traffic._delays)
        if seconds:
            traffic._delays.clear()
            self._wait = self._exchange.reactor.call_later(seconds, self._delay_over)
        elif self._then is not None:
            then, self._then = self._then, None
            then()

    def _delay_over(self) -> None:
        self._wait = None
        self._guarded(self._hook_over)

    def _guarded(self, call: Callable[[], object]) -> None:
        """From the loop: what the handler behind raises is answered as it would be in the handler's own call."""
        try:
            call()
        except Exception as error:
            log.exception("exception while handling %r", self._exchange.request)
            self._exchange.failed(error)

    def _fail(self, error: BaseException) -> None:
        self._drop_response()
        self._then = None
        self._script.failed(self._exchange, error)

    # The request.

    def _forward(self) -> None:
        exchange, traffic = self._exchange, self._traffic
        if exchange.ended:
            return
        if traffic._answer is not None:
            self._answer()
            return
        if self._hooks.response is None and not traffic.request._changed():
            self._script.handler.handle(exchange)
            return
        request, body = traffic.request._outcome()
        self._inner = inner = exchange.derive(request, body, self._responded, self._inner_over)
        self._script.handler.handle(inner)

    def _answer(self) -> None:
        assert self._traffic._answer is not None
        exchange = self._exchange
        head, body, exchange.verdict, reason = self._traffic._answer
        exchange.reason = reason if reason is None else f"refused by the script: {reason}"
        exchange.respond(head, body)

    # The response.

    def _responded(self, inner: Exchange, head: Head, body: Body) -> None:
        exchange, hook = self._exchange, self._hooks.response
        self._tell()
        if hook is None or exchange.ended:
            exchange.respond(head, body)
            return
        if exchange.timing is not None:
            exchange.timing.enter("script", exchange.reactor.clock())
        traffic = self._traffic
        traffic._response = self._response = ScriptResponse(traffic.request._now.method, head, body)
        try:
            pending = hook(traffic)
        except RAISED as error:
            self._fail(error)
            return
        self._go_through(pending, self._give)

    def _give(self) -> None:
        response, self._response = self._response, None
        assert response is not None
        if self._traffic._answer is not None:
            response._close()
            self._answer()
        else:
            self._exchange.respond(*response._outcome())

    def _drop_response(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response._close()

    # The end.

    def _tell(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.tell_outer()

    def _inner_over(self, inner: Exchange) -> None:
        if not inner.status:
            self._tell()
            self._exchange.abort(inner.failure or "given up")

    def _ended(self, exchange: Exchange) -> None:
        """Nobody waits for the hook any more."""
        self._tell()
        hook, self._hook = self._hook, None
        wait, self._wait = self._wait, None
        self._then = None
        if wait is not None:
            wait.cancel()
        self._drop_response()
        if hook is not None:
            try:
                hook.close()
            except RAISED as error:
                log.error("script %s: a hook raised as its client left", self._script.file.path, exc_info=error)

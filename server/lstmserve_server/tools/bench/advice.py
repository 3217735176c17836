"""Advice from the figures of `lstmserve bench`: pure functions, each with its reason.

Advice is computed from what was measured and claims nothing beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lstmserve_server.tools.bench.benchmark import Measurement
from lstmserve_server.tools.bench.load_generator import Case

WORTH: Final = 0.9
"""At most so much of the CPU time another way may take to be worth more than the plain one."""

WORTH_OTHER_BYTES: Final = 0.8
"""The same of fast numerics, whose answers move by rounding errors with the rows that are computed together."""

_NEARLY_BEST: Final = 1.1  # of the CPU time: fewer rows wait less for one another
_NEARLY_ONE: Final = 0.25  # of a worker more, as the CPUs that it keeps busy are not exact measure
_DEFAULT_PENDING: Final = 64
_FULL: Final = 0.9  # of a CPU
_MOST_PENDING: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Advice:
    """One piece of advice."""

    value: str | int | None
    """None where there is none to give."""

    why: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns everything, under stable keys."""
        return {"value": self.value, "why": self.why, **self.details}


def advise(measured: Sequence[Measurement], cpus: float, deadline: float) -> dict[str, Advice]:
    """Returns all advice, by subject.

    Args:
        measured: of one or two numerics.
        cpus: number of CPUs that the server may use.
        deadline: latency that callers want, in seconds.
    """
    if not measured:
        nothing = Advice(None, "nothing could be measured")
        return dict.fromkeys(("numerics", "calls", "rows", "workers", "max_pending_calls"), nothing)
    chosen = numerics(measured)
    own = [one for one in measured if one.numerics == chosen.value]
    return {
        "numerics": chosen,
        "calls": calling_style(own),
        "rows": rows(own, deadline),
        "workers": workers(own, cpus),
        "max_pending_calls": max_pending_calls(own, deadline),
    }


def numerics(measured: Sequence[Measurement]) -> Advice:
    """Recommends numerics: fast if its cheapest case takes clearly less CPU time, else exact."""
    of_exact, of_fast = ({one.case: one for one in measured if one.numerics == mode} for mode in ("exact", "fast"))
    both = [one for case, one in of_exact.items() if case in of_fast]
    if not both:
        only = measured[0].numerics
        other = "fast" if only == "exact" else "exact"
        return Advice(only, f"it is what was measured; --compare-numerics measures {other} too")
    ratios = [of_fast[one.case].cpu_per_1000_steps / one.cpu_per_1000_steps for one in both]
    cheapest = min(range(len(both)), key=lambda place: both[place].cpu_per_1000_steps)
    least, most = ratios.index(min(ratios)), ratios.index(max(ratios))
    low, high, at_cheapest = (f"{ratios[place]:.2f} ({title(both[place].case)})" for place in (least, most, cheapest))
    text = f"fast took {low} to {high} of exact's CPU time, and {at_cheapest} where a step is cheapest"
    details = {"fast_to_exact": {"least": ratios[least], "most": ratios[most], "at_cheapest": ratios[cheapest]}}
    if ratios[cheapest] <= WORTH_OTHER_BYTES:
        warning = "its answers move by rounding errors with the rows that are computed together"
        return Advice("fast", f"{text}; {warning}", details)
    return Advice("exact", f"{text}: too little for giving up equal bytes", details)


def calling_style(measured: Sequence[Measurement]) -> Advice:
    """Recommends streams or calls of `Step`, at a number of callers that both were measured with."""
    steps = {one.case.callers: one for one in measured if one.case.kind == "step"}
    streams = {one.case.callers: one for one in _plain_streams(measured) if one.case.rows == 1}
    common = [callers for callers in steps if callers in streams]
    if not steps:
        return Advice("forward", "the model cannot be stepped: whole sequences are all there is")
    if not common:
        return Advice(None, "streams and Step were not both measured")
    callers = max(common)
    ratio = streams[callers].cpu_per_1000_steps / steps[callers].cpu_per_1000_steps
    text = (
        f"at {count(callers, 'caller')} a step in a stream took {ratio:.2f} of the server's CPU time of a call of Step"
    )
    long = next((one for one in measured if one.case.kind == "stream" and one.case.steps > 1), None)
    if long is not None:
        alone = streams.get(long.case.callers, streams[callers])
        several = long.cpu_per_1000_steps / alone.cpu_per_1000_steps
        text += f"; with {long.case.steps} steps in a message, {several:.2f} of that with one"
    details = {"stream_to_step": ratio}
    if ratio <= WORTH:
        return Advice("streams", text, details)
    return Advice("step", f"{text}: too little for keeping a stream open", details)


def rows(measured: Sequence[Measurement], deadline: float) -> Advice:
    """Recommends the smallest number of rows per message with nearly the lowest CPU time per row and an acceptable latency."""
    kind = "stream" if any(one.case.kind == "stream" for one in measured) else "forward"
    alike = _plain_streams(measured) if kind == "stream" else [one for one in measured if one.case.kind == "forward"]
    fewest = min((one.case.callers for one in alike), default=0)
    candidates = sorted((one for one in alike if one.case.callers == fewest), key=lambda one: one.case.rows)
    quick = [one for one in candidates if one.taken.p99 <= deadline]
    if not quick:
        text = (
            f"none that was measured has a p99 within the deadline of {in_words(deadline)}" if alike else "not measured"
        )
        return Advice(None, text)
    cheapest = min(one.cpu_per_1000_steps for one in quick)
    chosen = next(one for one in quick if one.cpu_per_1000_steps <= _NEARLY_BEST * cheapest)
    costs = ", ".join(f"{in_words(one.cpu_per_1000_steps / 1000)} with {one.case.rows}" for one in candidates)
    text = f"server CPU for a step of a row, by rows in a message: {costs}"
    if chosen is candidates[-1]:
        text += ". It is the most that was measured: more may be cheaper still (--rows)"
    return Advice(chosen.case.rows, text)


def workers(measured: Sequence[Measurement], cpus: float) -> Advice:
    """Recommends a number of workers, from the number of CPUs that one keeps busy."""
    full = _full(measured)
    busy, load = full.taken.server_cpu / full.taken.seconds, full.taken.load_cpu / full.taken.seconds
    each = max(1.0, busy)
    alone = max(1, int(cpus / each + _NEARLY_ONE))
    shared = max(1, int(cpus / (each + load) + _NEARLY_ONE))
    text = (
        f"one process kept {busy:.2f} CPUs busy with {title(full.case)}, and {cpus:g} can be used. That holds if clients run on "
        f"other machines; here the load generator shared the CPUs, and took {load:.2f} more: with clients alongside it, {shared}. "
        "What several workers reach was not measured"
    )
    if busy < _FULL:
        text += ". The server was not full: others had the CPUs, or the callers were too few"
    return Advice(alone, text, {"with_clients_on_this_machine": shared, "busy_cpus": busy, "load_cpus": load})


def max_pending_calls(measured: Sequence[Measurement], deadline: float) -> Advice:
    """Recommends the number of pending calls for which every accepted call meets the deadline.

    gRPC accepts up to twice this setting. The last waiting call is answered only when all calls ahead of it are.
    """
    full = _full(measured)
    own = min(one.taken.p99 for one in measured if one.case.kind == full.case.kind)
    rate, room = full.calls_per_second, deadline - own
    number = min(_MOST_PENDING, int(room * rate / 2))
    waits = {"calls_per_second": rate, "longest_wait_of_default_seconds": 2 * _DEFAULT_PENDING / rate}
    default = f"the default, {_DEFAULT_PENDING}, stands for {in_words(2 * _DEFAULT_PENDING / rate)} at most"
    if number < 1:
        text = f"a call alone has a p99 of {in_words(own)}: none can wait within the deadline of {in_words(deadline)}; {default}"
        return Advice(None, text, waits)
    if full.counted.queue:
        limit = 2 * number
        text = f"these calls take long and wait for a thread, where --max-concurrent-calls bounds the wait: at most {limit:,}"
        return Advice(
            None, f"{text} keep within the deadline of {in_words(deadline)}", {**waits, "max_concurrent_calls": limit}
        )
    text = (
        f"one process answered {rate:,.0f} calls a second ({title(full.case)}), and up to twice as many as the setting wait: "
        f"more than this may wait longer than the deadline of {in_words(deadline)}; {default}"
    )
    return Advice(number, text, waits)


def title(case: Case) -> str:
    """Returns the title of a case."""
    rows = f", {case.rows} rows" if case.rows > 1 else ""
    match case.kind:
        case "step":
            return f"Step{rows}, {count(case.callers, 'caller')}"
        case "stream":
            steps = f", {case.steps} steps" if case.steps > 1 else ""
            return f"{count(case.callers, 'stream')}{rows}{steps or ('' if rows else ', 1 row')}"
        case "forward":
            callers = f", {count(case.callers, 'caller')}" if case.callers > 1 else ""
            return f"Forward T={case.steps}{rows}{callers}"


def count(number: int, what: str) -> str:
    """Returns a count with its noun."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _full(measured: Sequence[Measurement]) -> Measurement:
    """Returns the measurement of most callers of `Step`, or, where there is none, of `Forward`; else the first."""
    for kind in ("step", "forward"):
        alike = [one for one in measured if one.case.kind == kind]
        if alike:
            return max(alike, key=lambda one: (one.case.callers, -one.case.rows))
    return measured[0]


def _plain_streams(measured: Sequence[Measurement]) -> list[Measurement]:
    """Returns the streams of one step in a message."""
    return [one for one in measured if one.case.kind == "stream" and one.case.steps == 1]


def in_words(seconds: float) -> str:
    """Returns a duration in words."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"

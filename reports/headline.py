"""The headline: what a run says in one sentence, with its date, its hardware and its n.

Knows results, and which of them a reader may take away. Refuses to choose a winner that its interval does not support:
arms that none beats are named with their intervals, and whether their quality differs is said, or is not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from orderbench.orders.errors import listed, printable
from orderbench.reports.compare import busy, judged_arm
from orderbench.reports.conditions import describe_device
from orderbench.reports.queries import pareto, timed_apart
from orderbench.reports.results import Results, Row, row_against, times_seeds, too_small
from orderbench.reports.statistics import Interval
from orderbench.reports.table import TIMES
from orderbench.reports.words import APART, baseline_words, bounds, one_at_a_time, plus_minus, plus_minus_tiny

MOST_NAMED = 3  # arms of the front; of more, its two ends


@dataclass(frozen=True)
class Headline:
    """One sentence in three parts. where: date and hardware. says: what none beats, or what is least. doubts: how far
    it may be trusted."""

    where: str
    says: str
    doubts: tuple[str, ...]

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{where}{'; '.join([self.says, *self.doubts])}."


def headline(results: Results) -> Headline | None:
    """What a run says; None where nothing was measured that arms could be told apart by."""
    rows = [row for row in results.arms if row.setting == "fixed"]
    front, apart = _front(results, rows)
    said = front or _fastest(results, rows) or _least(results, rows)
    if not said:
        return None
    doubts = (apart, _rests_on(results, rows), APART * timed_apart(results, 1), _busy(results))
    return Headline(_where(results), f"{_compared(rows)}{said}", tuple(filter(None, doubts)))


def _where(results: Results) -> str:
    """When and on what, as in '30 November 2026, Intel Xeon, 2 cores, 1 thread'."""
    found = results.run.about["environments"]
    days = sorted({day for one in found if (day := _day(one.get("at")))})
    dates = " to ".join(f"{day.day} {day:%B %Y}" for day in dict.fromkeys((days[0], days[-1]))) if days else ""
    timed = [trial["device"] for trial in results.run.done("latency")]
    devices = list(dict.fromkeys(printable(describe_device(one)) for one in timed or found))
    more = [f"{len(devices) - 2} more machines"] if len(devices) > 2 else []
    return ", ".join(filter(None, [dates, *devices[:2], *more]))


def _day(at: object) -> datetime | None:
    """The day of a time as records write it; None where it is none."""
    try:
        return datetime.fromisoformat(str(at)).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    except ValueError:
        return None


def _compared(rows: Sequence[Row]) -> str:
    orders = list(dict.fromkeys(row.about["order"] for row in rows))
    named = listed(orders if len(orders) <= 5 else [*orders[:4], f"{len(orders) - 4} more"])
    arms = f"{len(rows)} arms of " if len(rows) > len(orders) else ""
    return f"of {arms}{named}, " if len(rows) > 1 else ""


def _front(results: Results, rows: Sequence[Row]) -> tuple[str, str]:
    """The arms that none beats at both FD and latency, from the fastest to the least FD; what tells the two apart."""
    both = [row for row in rows if {"fd", "latency_s"} <= row.figures.keys()]
    if len(both) < 2:
        return "", ""
    front = [both[i] for i in pareto([(row.figures["latency_s"].value, row.figures["fd"].value) for row in both])]
    front.sort(key=lambda row: (row.figures["latency_s"].value, row.figures["fd"].value))
    named = front if len(front) <= MOST_NAMED else [front[0], front[-1]]
    texts = [f"{row.arm} ({_figures(results, row, first=row is named[0])})" for row in named]
    if len(front) == 1:
        return f"none beats {texts[0]} at FD or at latency", ""
    more = f", nor the {len(front) - 2} between them," if len(front) > MOST_NAMED else ""
    return f"none beats {listed(texts, 'or')}{more} at both FD and latency", _apart(results, front[0], front[-1])


def _figures(results: Results, row: Row, first: bool) -> str:
    """What was measured of an arm; the first says what it is faster than."""
    said = [f"FD {plus_minus_tiny(row.figures['fd'])}"] if "fd" in row.figures else []
    latency = row.figures.get("latency_s")
    if latency is not None:
        one = latency.scaled(1000)
        said.append(f"{plus_minus(Interval(one.value) if 1 in row.speedup else one)} ms/image")
    if 1 in row.speedup:
        one_by_one = ", one cell at a time" if one_at_a_time(results) else ""
        over = f" times faster than {baseline_words(results)}{one_by_one}" if first else f" {TIMES}"
        said.append(f"{bounds(row.speedup[1])}{over}")
    return ", ".join(said)


def _apart(results: Results, fast: Row, good: Row) -> str:
    """Whether the FD of the two ends of a front differs."""
    row = row_against(results, good, fast.arm)
    difference = row.against.get("fd")
    if difference is None:
        return f"whether {good.arm} has a lower FD than {fast.arm} is not known: they share no noise"
    verdict, why = judged_arm(results, row, "fd")
    if verdict == "better":
        return f"{good.arm} has the lower FD, by {bounds(difference.scaled(-1))}"
    if verdict == "no difference shown":
        return f"between {good.arm} and {fast.arm} no difference in FD is shown ({bounds(difference)})"
    return f"whether {good.arm} has a lower FD than {fast.arm} is not judged ({why or verdict})"


def _fastest(results: Results, rows: Sequence[Row]) -> str:
    """Where no quality was measured: the arm with the least time."""
    timed = [row for row in rows if 1 in row.speedup]
    if not timed:
        return ""
    best = max(timed, key=lambda row: row.speedup[1].value)
    return f"{best.arm} took the least time for one image ({_figures(results, best, first=True)})"


def _least(results: Results, rows: Sequence[Row]) -> str:
    """Where no speed was measured: the arm with the least FD or the fewest bits, against its baseline."""
    for metric, words in (("fd", "the least FD"), ("bits", "the fewest bits per token")):
        measured = [row for row in rows if metric in row.figures]
        if measured:
            best = min(measured, key=lambda row: row.figures[metric].value)
            said = f"{best.arm} has {words}, {plus_minus_tiny(best.figures[metric])}"
            if metric in best.against:
                verdict, why = judged_arm(results, best, metric)
                judged = f"{verdict}: {why}" if why else verdict
                said += f" (against {best.baseline} {bounds(best.against[metric])}: {judged})"
            return said
    return ""


def _rests_on(results: Results, rows: Sequence[Row]) -> str:
    n = sorted({row.n for row in rows if row.n is not None})
    if not n:
        return ""
    small = any(too_small(results, row) for row in rows)
    return f"n = {', '.join(map(str, n))}{times_seeds(rows)}{': a first look' if small else ' samples an arm'}"


def _busy(results: Results) -> str:
    found = busy(results.run)
    return f"read no speed from this: {found}" if found else ""

"""Words: how a number, its interval, a setting and a doubt are written wherever a person reads them.

Knows intervals and rows of results. Refuses to know where the words go: a terminal, a figure, a table or the page.
"""

from __future__ import annotations

import math

from orderbench.orders.errors import listed
from orderbench.reports.compare import busy
from orderbench.reports.results import Floor, Results, Row, is_fid, other_tokens
from orderbench.reports.statistics import Interval
from orderbench.runs.schema import Setting

FLOOR_NAMES = {"real": "real images", "reconstructed": "reconstructed", "noise": "noise codes"}
ARROWS = {"low": "\N{DOWNWARDS ARROW}", "high": "\N{UPWARDS ARROW}"}  # to the better end
TINY = 1e-3  # below it, four decimals run out


def digits(*values: float | None) -> int:
    """Decimals that show three significant digits of the least of these that is not 0, from 0 to 4."""
    sizes = [abs(value) for value in values if value]
    return 0 if not sizes else max(0, min(4, 2 - math.floor(math.log10(min(sizes)))))


def plus_minus(interval: Interval | None) -> str:
    """A value with its interval's half-width behind ±, or a dash; the half-width has two significant digits."""
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.{digits(interval.value)}f}"
    half = (interval.high - interval.low) / 2
    places = max(0, min(4, digits(half) - 1)) if half else digits(interval.value)
    return f"{interval.value:.{places}f} ±{half:.{places}f}"


def count_words(count: float | None) -> str:
    """A count, or a mean of counts with one decimal; empty where there is none.

    >>> count_words(1048576), count_words(13.25), count_words(None)
    ('1048576', '13.2', '')
    """
    return "" if count is None else str(int(count)) if count == int(count) else f"{count:.1f}"


def tiny(interval: Interval | None) -> bool:
    """Whether decimals run out before its value or its interval begins."""
    return interval is not None and 0 < max(abs(bound) for bound in (interval.value, interval.low or 0.0,
                                                                     interval.high or 0.0)) < TINY  # fmt: skip


def plus_minus_tiny(interval: Interval | None) -> str:
    """A value with its interval's half-width behind ±; more decimals, or powers of ten, where four would run out."""
    if interval is None or interval.low is None or interval.high is None:
        return f"{interval.value:.2e}" if interval is not None and tiny(interval) else plus_minus(interval)
    half = (interval.high - interval.low) / 2
    if tiny(interval):
        return f"{interval.value:.2e} ±{half:.1e}"
    if 0 < half < TINY:
        places = min(6, 1 - math.floor(math.log10(half)))
        return f"{interval.value:.{places}f} ±{half:.{places}f}"
    return plus_minus(interval)


def bounds(interval: Interval | None, most: int = 6) -> str:
    """A value with its interval in brackets, for what is not symmetric; powers of ten where decimals would run out.

    most: decimals at most, where there is little room.
    """
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.2e}" if tiny(interval) else f"{interval.value:.{digits(interval.value)}f}"
    if tiny(interval):
        return f"{interval.value:.2e} [{interval.low:.1e}, {interval.high:.1e}]"
    places = min(most, digits(interval.value), digits(interval.low, interval.high)) if interval.value else 2
    return f"{interval.value:.{places}f} [{interval.low:.{places}f}, {interval.high:.{places}f}]"


def share_words(interval: Interval | None) -> str:
    """A share with its interval in brackets, of as many decimals as the interval is good for.

    >>> share_words(Interval(0.90625, 0.8100, 0.9563)), share_words(None)
    ('0.91 [0.81, 0.96]', '-')
    """
    if interval is None or interval.low is None or interval.high is None:
        return bounds(interval)
    half = (interval.high - interval.low) / 2
    places = max(2, min(4, -math.floor(math.log10(half)))) if half > 0 else 4
    return f"{interval.value:.{places}f} [{interval.low:.{places}f}, {interval.high:.{places}f}]"


def training(row: Row) -> str:
    """Whether the weights saw this order."""
    if row.trained is None:
        return ""
    star = "*" if row.about["training_share_at_pace"] == 0 else ""
    return f"{100 * row.trained:.0f} %{star}" if row.trained else "never"


def training_words(row: Row) -> str:
    """What the weights saw of this order, and of these steps."""
    if row.trained is None:
        return "share of training not known"
    if not row.trained:
        return "never trained"
    never = ", never in these steps" if row.about["training_share_at_pace"] == 0 else ""
    return f"{100 * row.trained:.0f} % of training{never}"


def sampling_words(sampling: Setting, whole: bool = False) -> str:
    """A setting; without `whole`, top-k and top-p only where they leave out any code."""
    words = [f"guidance {sampling['guidance']}", f"temperature {sampling['temperature']:g}"]
    if whole or sampling["top_k"]:
        words.append(f"top-k {sampling['top_k'] or 'all'}")
    if whole or sampling["top_p"] != 1:
        words.append(f"top-p {sampling['top_p']:g}")
    if sampling.get("noise", "uniform") != "uniform":
        words.append(f"{sampling['noise']} noise")
    return ", ".join(words)


def settings_words(results: Results) -> str:
    """The fixed setting of the run's models, each with its own where they differ."""
    settings = {name: sampling_words(results.run.about["models"][name]["setting"]) for name in results.models}
    if len(set(settings.values())) == 1:
        return next(iter(settings.values()))
    return "; ".join(f"{name}: {words}" for name, words in settings.items())


def baseline_words(results: Results) -> str:
    """What arms are measured against: one arm, or the baseline of each one's model."""
    return results.baselines[0] if len(results.baselines) == 1 else "its model's baseline"


def other_tokens_words(results: Results) -> str:
    """Whose bits are of other tokens than the others', as a sentence; empty where all are of the same."""
    others = other_tokens(results)
    return f"Bits of {listed(others)} are of other tokens, and not comparable with the others." if others else ""


def one_at_a_time(results: Results) -> bool:
    """Whether every baseline decodes one cell at a time."""
    models = results.run.about["models"]
    return all(models[row.model]["ratio"] for row in results.arms if row.baseline is not None)


def floor_name(floor: Floor) -> str:
    """A floor in words, with its model where that is not the run's own."""
    return FLOOR_NAMES.get(floor.arm, floor.arm) + ("" if floor.own else f"~{floor.model}")


def floor_cell(results: Results, floor: Floor) -> str:
    """A floor as tables have it, with its own n where that is not the arms': a Frechet distance depends on it."""
    theirs = {row.n for row in results.arms if row.n is not None}
    other = floor.n is not None and bool(theirs) and floor.n not in theirs
    return f"({floor.name} n={floor.n})" if other else f"({floor.name})"


def fid_words(results: Results) -> str:
    """Whether FD may be called FID."""
    return distance_words(is_fid(results))


def distance_words(fid: bool) -> str:
    """The same, where it is known."""
    return "FD is FID as torch-fidelity computes it" if fid else "not FID"


APART = "not all arms took turns in the same rounds: compare ratios, not times"


def busy_words(results: Results) -> str:
    """That others computed during the timings, which no interval shows; empty where nothing says so."""
    found = busy(results.run)
    return f"Read no speed from this: {found}, which slows arms unequally" if found else ""

"""How numbers are written for people: scores, intervals, p-values, shares, counts, sizes and durations."""

import math

DASH = "–"  # of what is not defined
_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def known(value: float | None) -> float | None:
    """Return a number that is defined, else None, which a table shows as a dash."""
    return value if value is not None and math.isfinite(value) else None


def format_score(value: float | None, digits: int = 3, *, missing: str = DASH) -> str:
    """Write a score, or what stands for one that is not defined."""
    return missing if known(value) is None else f"{value:.{digits}f}"


def format_change(value: float | None, digits: int = 4) -> str:
    """Write a difference with its sign; one that rounds to none has a plus."""
    return DASH if value is None or known(value) is None else f"{round(value, digits) + 0:+.{digits}f}"


def format_interval(low: float | None, high: float | None, digits: int = 3, *, joint: str = " to ") -> str | None:
    """Write an interval; None where it is not defined."""
    return None if known(low) is None or known(high) is None else f"{low:.{digits}f}{joint}{high:.{digits}f}"


def format_with_interval(
    value: float | None, low: float | None, high: float | None, digits: int = 3, *, joint: str = " to "
) -> str:
    """Write a score with its interval, where it has one, such as 0.912 (0.880 to 0.941)."""
    interval = format_interval(low, high, digits, joint=joint)
    return format_score(value, digits) + (f" ({interval})" if interval is not None else "")


def format_share(value: float | None, low: float, high: float) -> str:
    """Write a share with its interval, such as 91.2% (88.0% to 94.1%)."""
    return DASH if value is None else f"{value:.1%} ({low:.1%} to {high:.1%})"


def format_p(p: float, least: float = 1e-4) -> str:
    """Write a p-value in two digits; below the least that the test can tell, just that."""
    return "1" if p > 0.995 else f"{p:.2g}" if p >= least else f"<{least:g}"


def format_count(number: int, word: str = "image", plural: str = "") -> str:
    """Write a number of things: 1 image, 2 images."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def format_magnitude(number: float) -> str:
    """Write a large number in three digits, such as 3.4 M."""
    for unit, size in _UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def format_size(size: float) -> str:
    """Write a number of bytes, such as 2.5 MB."""
    for unit, scale in _UNITS[:-1]:
        if size >= scale:
            return f"{size / scale:.1f} {unit}B"
    return f"{size / 1000:.0f} kB"


def format_duration(seconds: float, *, digits: int = 1) -> str:
    """Write a time in its two largest units, such as 2 min 31 s; below a minute with so many digits."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.{digits}f} s"


def listed(names: tuple[str, ...] | list[str], limit: int = 10) -> str:
    """Write names in a row, and how many are left out."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest:,} more" if rest > 0 else "")

"""Figures from samples: medians, percentiles, slopes, ratios. Pure."""


def median(values):
    """The middle one, or the mean of the middle two; None of nothing."""
    values = sorted(values)
    if not values:
        return None
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def percentile(values, percent):
    """The smallest value that at least `percent` of all do not exceed (nearest rank); None of nothing."""
    values = sorted(values)
    if not values:
        return None
    rank = -(-len(values) * percent // 100)
    return values[max(0, min(len(values) - 1, int(rank) - 1))]


def slope(points):
    """Least squares slope of (x, y) points; None when all x are the same."""
    if len({x for x, _ in points}) < 2:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def ratio(value, reference):
    """value / reference; None when one is missing or the reference is not positive."""
    if value is None or reference is None or reference <= 0:
        return None
    return value / reference


def added(value, base, reference):
    """How much `value` adds to `base`, as a share of what `reference` adds; None when that is nothing or something is missing."""
    if value is None or base is None or reference is None or reference <= base:
        return None
    return (value - base) / (reference - base)

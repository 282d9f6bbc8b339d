"""The work that every contestant does on a reading."""


def is_active(reading):
    return reading["active"]


def mark(reading):
    reading["hot"] = reading["celsius"] > 30.0
    return reading

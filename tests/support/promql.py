"""What a query of Prometheus names: metrics and their labels. Not a parser of all of PromQL, but of what our queries use."""

from __future__ import annotations

import re
from typing import NamedTuple

_WORDS = {"and", "or", "unless", "bool", "inf", "nan", "by", "without", "on", "ignoring", "offset"}
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_NAME = re.compile(r"(?<![\w.$:])([a-zA-Z_:][\w:]*)(\s*\{[^{}]*\})?(?!\s*\()(?![\w:])")


class Named(NamedTuple):
    """A metric, and labels that a query expects it to have."""

    metric: str
    labels: frozenset[str]


def named(query: str) -> set[Named]:
    """Returns every metric of a query with the labels of its matchers, and with those that it is grouped by.

    Raises:
        ValueError: brackets or quotes do not match.
    """
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    plain = re.sub(r"\[[^\]]*\]|\boffset\s+-?\w+", "", plain)
    if '"' in plain.replace('""', "") or any(plain.count(a) != plain.count(b) for a, b in ("()", "{}", "[]")):
        raise ValueError(f"brackets or quotes do not match: {query}")
    found = set(_matched(_GROUPING.sub("", plain)))
    for grouping in _GROUPING.finditer(plain):
        labels = frozenset(filter(None, map(str.strip, grouping[2].split(","))))
        inside = _GROUPING.sub("", _bracketed(plain, grouping.end()))
        found |= {Named(metric, labels) for metric, _ in _matched(inside)}
    return found


def _matched(plain: str) -> list[Named]:
    return [
        Named(name, frozenset(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers or "")))
        for name, matchers in _NAME.findall(plain)
        if name.lower() not in _WORDS
    ]


def _bracketed(plain: str, start: int) -> str:
    """Returns what is in the next pair of brackets."""
    begin = plain.index("(", start)
    depth = 0
    for end in range(begin, len(plain)):
        depth += {"(": 1, ")": -1}.get(plain[end], 0)
        if depth == 0:
            break
    return plain[begin + 1 : end]

"""Random mutations of configurations."""

from __future__ import annotations

import copy

VALUES = [
    None, True, -1, 0, 1, 64, 1 << 40, 10**400, 1e308, 0.5, "x", "", [], {}, [[]], ["x", 0, 0], "one", "LSTM", ["one", 0, 0, {}],
    {"config": {"keras_history": ["one", 0, 0]}}, {"class_name": "ReLU", "config": {"name": "r", "max_value": 10**400}},
]  # fmt: skip


def places(value, above=()):
    """Yields the way to everything in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*above, key)
        yield from places(item, (*above, key))


def mutant(config, chance):
    """Returns a configuration with one or two changes: something deleted, repeated or replaced, be it by another part."""
    made = copy.deepcopy(config)
    for _ in range(chance.choice((1, 1, 2))):
        ways = [way for way in places(made) if way[0] == "config" and len(way) > 1]
        if not ways:
            break
        *way, key = chance.choice(ways)
        parent = made
        for step in way:
            parent = parent[step]
        match chance.randrange(4):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case 2:
                other = made
                for step in chance.choice(ways):
                    other = other[step]
                parent[key] = copy.deepcopy(other)
            case _:
                parent[key] = copy.deepcopy(chance.choice(VALUES))
    return made

"""Damage to model files: to their bytes, and to what is in them, archive, configuration and weights."""

from __future__ import annotations

import copy
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.fuzz.damage import damaged, overwritten
from tests.fuzz.service import FIXTURES

_CONFIG: Final = re.compile(rb'\{"(?:class_name|module)".*?\}(?=[\0\x89]|$)', re.DOTALL)
_VALUES: Final = (None, True, False, -1, 0, 1, 2, 3, 7, 65_537, 2**31, 2**63, -(2**63), 0.5, -1.5, 1e308, float("nan"), float("inf"), "",
                  "tanh", "causal", "LSTM", "float16", "../x", "x" * 1000, [], {}, [None], [0, 0], [[]], {"class_name": "Dense", "config": {}})  # fmt: skip
_LARGEST_SEED: Final = 64 << 10
_DEEPEST: Final = 200


def seeds() -> list[Path]:
    """Returns the valid files, of every writer: archives, whole models, and weights that no configuration lies alongside."""
    paths = [path for path in sorted(FIXTURES.glob("*/*")) if path.suffix in (".keras", ".h5")]
    return [path for path in paths if path.stat().st_size < _LARGEST_SEED and ".legacyw" not in path.name]


def mutant(random: Random, data: bytes) -> bytes:
    """Returns a model file with something changed in it."""
    if not data.startswith(b"PK"):
        return _hdf5(random, data)
    if random.random() < 0.1:
        return random.choice((damaged, overwritten))(random, data, random.randint(1, 4))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = random.choices(range(len(members)), [_weight_of(name) for name, _ in members])[0]
    name, content = members[at]
    members[at] = (name, _member(random, name, content))
    if random.random() < 0.03:
        random.choice((random.shuffle, list.pop))(members)
    made = io.BytesIO()
    with zipfile.ZipFile(
        made, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return made.getvalue()


def _weight_of(name: str) -> int:
    return {"config.json": 10, "metadata.json": 1}.get(name, 10)


def _member(random: Random, name: str, content: bytes) -> bytes:
    if name.endswith(".json"):
        return _json(random, content) if random.random() < 0.8 else damaged(random, content, random.randint(1, 3))
    return _hdf5(random, content)


def _hdf5(random: Random, data: bytes) -> bytes:
    """Returns a file of HDF5 with bytes changed where they stand, or with another configuration of the same length."""
    found = _CONFIG.search(data) if random.random() < 0.4 else None
    if found is not None:
        text = _json(random, found[0])
        if len(text) <= len(found[0]):
            return data[: found.start()] + text.ljust(len(found[0])) + data[found.end() :]
    if random.random() < 0.9:
        return overwritten(random, data, random.randint(1, 4))
    return damaged(random, data, random.randint(1, 2))


def _json(random: Random, text: bytes) -> bytes:
    """Returns a configuration of which up to three places were changed."""
    try:
        whole = json.loads(text)
    except ValueError:
        return overwritten(random, text)
    for _ in range(random.randint(1, 3)):
        places = list(_places(whole))
        if not places:
            break
        holder, key = random.choice(places)
        _change(random, holder, key, places)
    try:
        return json.dumps(whole).encode()
    except (ValueError, RecursionError):  # a part was put into itself
        return overwritten(random, text)


def _places(part: Any) -> Iterator[tuple[Any, Any]]:
    """Yields every place in a tree: what holds it, and under which key."""
    keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
    for key in keys:
        yield part, key
        yield from _places(part[key])


def _change(random: Random, holder: Any, key: Any, places: list[tuple[Any, Any]]) -> None:
    match random.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.extend([copy.deepcopy(holder[key])] * random.choice((1, 2, 300)))
        case 1:
            holder[random.choice(("name", "units", "class_name", "config", "x"))] = holder.pop(key)
        case 2 | 3:
            other, place = random.choice(places)
            if (place in other) if isinstance(other, dict) else place < len(other):
                holder[key] = copy.deepcopy(other[place])
        case 4:
            for _ in range(random.choice((1, 2, _DEEPEST))):
                holder[key] = [holder[key]]
        case 5 if isinstance(holder[key], (int, float)):
            holder[key] = holder[key] * random.choice((-1, 2, 1000)) + random.choice((-1, 0, 1))
        case _:
            holder[key] = copy.deepcopy(random.choice(_VALUES))

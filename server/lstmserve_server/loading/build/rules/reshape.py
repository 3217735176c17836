"""Rules of layers that move numbers without computing."""

from __future__ import annotations

import math

from lstmserve_server.loading.build.rules.base import LayerConfigReader, LayerPlan


def flatten(r: LayerConfigReader) -> LayerPlan:
    """`Flatten`."""
    r.choice("data_format", "channels_last", "channels_last", None)
    if not r.incoming.sequence:
        return r.plan("Identity")
    size = r.require_known_time() * _size(r, r.incoming.shape[1:])
    return r.plan("Flatten", {"time": r.require_known_time()}, output_shapes=((size,),), mask=None)


def _size(r: LayerConfigReader, shape: tuple[int | None, ...]) -> int:
    if None in shape:
        raise r.refuse(f"gets what has the shape {shape}; expected every length except time to be known")
    return math.prod(length or 0 for length in shape)


def reshape(r: LayerConfigReader) -> LayerPlan:
    """`Reshape`."""
    target = r.get("target_shape")
    if not isinstance(target, list) or not 1 <= len(target) <= r.limits.axes or not all(type(n) is int for n in target):
        raise r.refuse(f"has target_shape={target!r}; expected one to {r.limits.axes} integers")
    if r.incoming.sequence:
        r.require_known_time()
    size = _size(r, r.incoming.shape)
    if target.count(-1) == 1:
        rest = -math.prod(target)
        target = [size // rest if length == -1 and rest > 0 else length for length in target]
    if math.prod(target) != size or min(target) < 1:
        raise r.refuse(f"has target_shape={target!r}, and its input has {size} elements")
    return r.plan("Reshape", {"to": ", ".join(map(str, target))}, output_shapes=(tuple(target),), mask=None)


def permute(r: LayerConfigReader) -> LayerPlan:
    """`Permute`."""
    r.require_sequence()
    r.choice("dims", None, [2, 1])
    return r.plan("Permute", output_shapes=((r.features, r.require_known_time()),), mask=None)


def repeat(r: LayerConfigReader) -> LayerPlan:
    """`RepeatVector`."""
    if r.incoming.sequence:
        raise r.refuse("gets a sequence; expected one vector")
    n = r.number("n", 1 << 20)
    return r.plan("RepeatVector", {"n": n}, output_shapes=((n, r.features),), mask=None)


def padding(r: LayerConfigReader) -> LayerPlan:
    """`ZeroPadding1D`."""
    return _ends(r, "padding", 1)


def cropping(r: LayerConfigReader) -> LayerPlan:
    """`Cropping1D`."""
    return _ends(r, "cropping", -1)


def _ends(r: LayerConfigReader, option: str, sign: int) -> LayerPlan:
    r.require_sequence()
    r.choice("data_format", None, "channels_last", None)
    before, after = r.pair(option)
    time = r.incoming.shape[0]
    if time is not None and time + sign * (before + after) < 1:
        raise r.refuse(f"leaves none of {time} time-steps")
    shape = (None if time is None else time + sign * (before + after), r.features)
    return r.plan(r.layer.kind, {"before": before, "after": after}, output_shapes=(shape,), mask=None)

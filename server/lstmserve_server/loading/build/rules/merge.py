"""Rules of merging layers, and of the Keras 3 operations that do the same."""

from __future__ import annotations

from typing import Any, Final

from lstmserve_server.loading.build.rules import base, masks
from lstmserve_server.loading.build.rules.base import LayerConfigReader, LayerInput, LayerPlan, Mask
from lstmserve_server.model.spec import Option, Shape

_ALTERS_MASKED: Final = ("Multiply", "Maximum", "Minimum")
"""Merge layers in which Keras 3 puts other numbers in the place of those that a mask passes over."""


def elementwise(r: LayerConfigReader) -> LayerPlan:
    """`Add`, `Subtract`, `Multiply`, `Average`, `Maximum`, `Minimum`."""
    _require_alike(r)
    if r.layer.kind == "Subtract" and len(r.incomings) != 2:  # noqa: PLR2004 - one from the other
        raise r.refuse(f"has {len(r.incomings)} inputs; expected 2")
    _require_known_rule(r)
    shape = _broadcast(r)
    if r.layer.kind in _ALTERS_MASKED and r.writer.merges_masks_by == "or" and any(item.mask for item in r.incomings):
        raise r.refuse("is given a mask. Keras 3 then replaces the values at masked time steps, which is not supported")
    return _merged(r, shape, masks.of_elementwise(r.incomings, r.writer.merges_masks_by))


def concatenate(r: LayerConfigReader) -> LayerPlan:
    """`Concatenate`, of features or of time-steps."""
    _require_alike(r)
    _require_known_rule(r)
    shapes = [item.shape for item in r.incomings]
    axis, rank = r.get("axis", -1), len(shapes[0])
    along = axis - 1 if type(axis) is int and axis > 0 else rank + axis if type(axis) is int else -1
    if along not in (0, rank - 1):
        raise r.refuse(f"has axis={axis!r}; only the last axis and the time axis are supported")
    others = [tuple(length for i, length in enumerate(shape) if i != along) for shape in shapes]
    if any(not _fit(one, others[0]) for one in others):
        raise r.refuse(f"merges inputs of incompatible shapes: {', '.join(map(str, shapes))}")
    lengths = [shape[along] for shape in shapes]
    total = None if None in lengths else sum(length or 0 for length in lengths)
    shape = (*shapes[0][:along], total, *shapes[0][along + 1 :])
    time = along == 0 and rank > 1
    mask = masks.of_concatenate(r.incomings, along_time=time, by=r.writer.merges_masks_by)
    return _merged(r, shape, mask, {"axis": "time"} if time else {})


def _require_known_rule(r: LayerConfigReader) -> None:
    if r.writer.merges_masks_by == "unknown" and any(item.mask for item in r.incomings):
        text = "merges masks, which every Keras 3 does in its own way, and the file does not say which wrote it"
        raise r.refuse(f"{text}. Add its keras_version to the architecture")


def _merged(
    r: LayerConfigReader, shape: Shape, mask: Mask | None, options: dict[str, Option] | None = None
) -> LayerPlan:
    options = {"inputs": len(r.incomings), **(options or {})}
    if mask is not None:
        options["mask"] = "any" if r.writer.merges_masks_by == "or" else "all"
    return r.plan(r.layer.kind, options, output_shapes=(shape,), mask=mask)


def _require_alike(r: LayerConfigReader) -> None:
    if len({len(item.shape) for item in r.incomings}) > 1 or len(r.incomings) < 2:  # noqa: PLR2004 - several
        shapes = ", ".join(str(item.shape) for item in r.incomings)
        raise r.refuse(f"merges inputs of the shapes {shapes}; expected several with the same number of axes")


def _broadcast(r: LayerConfigReader) -> Shape:
    """Returns the shape of the result; only a last axis of length one is repeated."""
    shapes = [item.shape for item in r.incomings]
    widest = max(shape[-1] or 0 for shape in shapes)
    if any(not _fit(shape[:-1], shapes[0][:-1]) or shape[-1] not in (1, widest) for shape in shapes):
        raise r.refuse(f"merges inputs of incompatible shapes: {', '.join(map(str, shapes))}")
    return (*shapes[0][:-1], widest)


def _fit(one: Shape, other: Shape) -> bool:
    return all(a == b or a is None or b is None for a, b in zip(one, other, strict=True))


def operation(r: LayerConfigReader, numbers: tuple[float, ...], *, number_first: bool) -> LayerPlan:
    """An operation on tensors, or on a tensor and a number, as the equivalent layer; it passes no mask on."""
    unmasked = tuple(LayerInput(item.shape, None, item.value, item.ids) for item in r.incomings)
    bare = LayerConfigReader(r.layer, r.writer, unmasked, r.limits)
    r.consumed.update(r.layer.options)
    kind = r.layer.kind
    if len(unmasked) == 1:
        options = _with_a_number(bare, numbers, number_first=number_first)
        return base.without_mask(r.plan("Rescaling", options))
    if kind == "Concatenate":
        return concatenate(bare)
    if kind not in ("Add", "Subtract", "Multiply") or numbers:
        raise r.refuse("is a tensor operation that is not supported. Use the equivalent Keras layer")
    return elementwise(bare)


def _with_a_number(r: LayerConfigReader, numbers: tuple[float, ...], *, number_first: bool) -> dict[str, Any]:
    """Returns scale and offset of `x + 3`, `2 - x`, `x * 5`, `x / 7` and `-x`."""
    scale, offset = 1.0, 0.0
    number = float(numbers[0]) if len(numbers) == 1 else None
    match r.layer.kind, number:
        case "Negative", None:
            scale = -1.0
        case "Add", float():
            offset = number
        case "Subtract", float():
            scale, offset = (-1.0, number) if number_first else (1.0, -number)
        case "Multiply", float():
            scale = number
        case "Divide" | "TrueDivide", float() if number and not number_first:
            return {"scale": 1.0, "offset": 0.0, "divisor": number}
        case _:
            raise r.refuse("is a tensor operation that is not supported. Use the equivalent Keras layer")
    return {"scale": scale, "offset": offset}

"""Masks as symbolic expressions: the mask of a merge, and whether an explicit mask is the implicit one.

Keras 3 writes the masks of functional models as operations on tensors (`NotEqual`, `Any` and others) and passes them to layers that
use masks. They equal the propagated masks, unless the author wrote a different one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from lstmserve_server.loading.build.rules.base import LayerInput, Mask

OPERATIONS: Final = frozenset(
    "All Any BroadcastTo Concatenate ExpandDims LogicalAnd LogicalOr NotEqual OnesLike ZerosLike".split()
)
"""The operations that masks are made of."""

ALL: Final[Mask] = ("ones",)
"""The mask that passes nothing over."""

_NONE: Final[Mask] = ("zeros",)


def of_elementwise(incomings: Sequence[LayerInput], by: str) -> Mask | None:
    """Returns the mask of `Add` and its kin (`Merge.compute_mask`); `by` as in `KerasVersion.merges_masks_by`."""
    found = [item.mask for item in incomings if item.mask is not None]
    if not found or by == "none" or (by == "or" and len(found) < len(incomings)):
        return None
    return either(found) if by == "or" else both(found)


def of_concatenate(incomings: Sequence[LayerInput], *, along_time: bool, by: str) -> Mask | None:
    """Returns the mask of `Concatenate` (`Concatenate.compute_mask`); `by` as in `KerasVersion.merges_masks_by`."""
    masks = [item.mask or ALL for item in incomings]
    if set(masks) == {ALL} or by == "none":
        return None
    if along_time:
        return ("Concatenate", *masks)
    made = either(masks) if by == "or" else both(masks)
    return None if made == ALL else made


def either(masks: Iterable[Mask]) -> Mask:
    """Returns the mask that masks a step only if all of several do."""
    different = set(masks) - {_NONE}
    if ALL in different:
        return ALL
    return next(iter(different)) if len(different) == 1 else ("or", *sorted(different, key=repr))


def both(masks: Iterable[Mask]) -> Mask:
    """Returns the mask that masks a step if any of several does."""
    different = set(masks) - {ALL}
    if not different:
        return ALL
    return next(iter(different)) if len(different) == 1 else ("and", *sorted(different, key=repr))


def of_operation(kind: str, arguments: Sequence[Mask], axis: object) -> Mask:  # noqa: PLR0911 - one for each operation
    """Returns the mask that an operation makes of others, in the form of the functions above.

    Args:
        kind: one of `OPERATIONS`, except for NotEqual, which makes a mask of a value.
        arguments: what it is called on.
        axis: the axis that its configuration names, if it does.
    """
    match kind:
        case "OnesLike":
            return ALL
        case "ZerosLike":
            return _NONE
        case "ExpandDims" | "BroadcastTo":
            return arguments[0]
        case "LogicalOr":
            return either(_flat("or", arguments))
        case "LogicalAnd":
            return both(_flat("and", arguments))
        case "Concatenate":
            return ("Concatenate", *arguments) if axis == 1 else ("features", *arguments)
        case "Any" | "All" if axis not in (-1, [-1], 2, [2]):  # of an author's own: no layer hands on such a mask
            return (f"{kind} along {axis}", *arguments)
        case _ if arguments[0][0] == "features":  # Any or All along the features of a concatenation
            return either(arguments[0][1:]) if kind == "Any" else both(arguments[0][1:])
        case _ if arguments[0][0] == "Concatenate":
            return arguments[0]
        case _:
            return (kind, *arguments)


def _flat(kind: str, masks: Sequence[Mask]) -> list[Mask]:
    """Returns masks, with combinations replaced by their parts."""
    return [part for mask in masks for part in (mask[1:] if mask[0] == kind else (mask,))]

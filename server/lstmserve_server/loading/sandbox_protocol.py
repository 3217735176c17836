"""Schema of the sandboxed process's answers: form and sizes are checked before anything is used."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

MAX_ANSWER_BYTES: Final = 8 << 20
"""Bytes of an answer; that of a model of a thousand layers is one."""

MAX_REASON_LENGTH: Final = 4000
"""Characters of a refusal."""

MAX_LAYERS: Final = 1024
"""Layers that are listed with a refusal."""

_Text = Annotated[str, msgspec.Meta(max_length=MAX_REASON_LENGTH)]
_Name = Annotated[str, msgspec.Meta(max_length=20_000)]  # of a layer after those of the models around it
_Count = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
_Shape = Annotated[list[_Count | None], msgspec.Meta(max_length=16)]
_Numbers = Annotated[list[_Count], msgspec.Meta(max_length=4096)]


class _Weight(msgspec.Struct, forbid_unknown_fields=True):
    shape: Annotated[list[_Count], msgspec.Meta(max_length=16)]
    offset: _Count


class _Activation(msgspec.Struct, forbid_unknown_fields=True):
    activation: _Name


class _Layer(msgspec.Struct, forbid_unknown_fields=True):
    name: _Name
    kind: _Name
    options: Annotated[dict[_Name, bool | _Count | float | _Name | _Activation], msgspec.Meta(max_length=64)]
    weights: Annotated[dict[_Name, _Weight], msgspec.Meta(max_length=64)]
    output_shapes: Annotated[list[_Shape], msgspec.Meta(max_length=64)]
    inputs: _Numbers
    initial_state: _Numbers
    parts: Annotated[list[_Layer], msgspec.Meta(max_length=2)]


class _Model(msgspec.Struct, forbid_unknown_fields=True):
    source: tuple[_Name, _Name, _Name, Annotated[list[_Text], msgspec.Meta(max_length=64)]]
    layers: Annotated[list[_Layer], msgspec.Meta(max_length=8192)]
    dtype: Literal["float32", "float64"]
    inputs: Annotated[list[tuple[_Name, _Shape, _Count, _Count | None]], msgspec.Meta(max_length=1024)]
    outputs: Annotated[list[tuple[_Name, _Shape, _Count]], msgspec.Meta(max_length=1024)]


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    model: _Model | None = None
    refused: _Text | None = None
    layers: Annotated[list[tuple[_Name, _Name, bool]], msgspec.Meta(max_length=MAX_LAYERS)] = []


def checked(line: bytes) -> dict[str, Any]:
    """Returns an answer: of "model" (see `transfer.write`), or "refused" and "layers".

    Raises:
        ValueError: it is none.
    """
    try:
        answer = msgspec.json.decode(line, type=_Answer)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        message = f"an answer that is none: {str(error)[:200]}"
        raise ValueError(message) from error
    if (answer.model is None) == (answer.refused is None):
        message = "an answer that is neither a model nor a refusal"
        raise ValueError(message)
    form: dict[str, Any] = msgspec.to_builtins(answer)
    return form

from lstmserve.v1 import shadow_pb2 as _shadow_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    D_TYPE_UNSPECIFIED: _ClassVar[DType]
    D_TYPE_FLOAT16: _ClassVar[DType]
    D_TYPE_BFLOAT16: _ClassVar[DType]
    D_TYPE_FLOAT32: _ClassVar[DType]
    D_TYPE_FLOAT64: _ClassVar[DType]
    D_TYPE_INT32: _ClassVar[DType]
    D_TYPE_INT64: _ClassVar[DType]

class Numerics(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NUMERICS_UNSPECIFIED: _ClassVar[Numerics]
    NUMERICS_EXACT: _ClassVar[Numerics]
    NUMERICS_FAST: _ClassVar[Numerics]
D_TYPE_UNSPECIFIED: DType
D_TYPE_FLOAT16: DType
D_TYPE_BFLOAT16: DType
D_TYPE_FLOAT32: DType
D_TYPE_FLOAT64: DType
D_TYPE_INT32: DType
D_TYPE_INT64: DType
NUMERICS_UNSPECIFIED: Numerics
NUMERICS_EXACT: Numerics
NUMERICS_FAST: Numerics

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data", "values")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("layers", "model_digest", "numerics_fingerprint", "steps")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedCompositeFieldContainer[LayerState]
    model_digest: str
    numerics_fingerprint: str
    steps: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, layers: _Optional[_Iterable[_Union[LayerState, _Mapping]]] = ..., model_digest: _Optional[str] = ..., numerics_fingerprint: _Optional[str] = ..., steps: _Optional[_Iterable[int]] = ...) -> None: ...

class LayerState(_message.Message):
    __slots__ = ("h", "c", "layer", "window", "steps")
    H_FIELD_NUMBER: _ClassVar[int]
    C_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    h: Tensor
    c: Tensor
    layer: str
    window: Tensor
    steps: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, h: _Optional[_Union[Tensor, _Mapping]] = ..., c: _Optional[_Union[Tensor, _Mapping]] = ..., layer: _Optional[str] = ..., window: _Optional[_Union[Tensor, _Mapping]] = ..., steps: _Optional[_Iterable[int]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "digest", "file", "format", "keras_version", "dtype", "input_shape", "output_shape", "layers", "state_layout", "parameter_count", "weight_bytes", "numerics", "numerics_fingerprint", "step_possible", "step_obstacle", "inputs", "outputs", "remarks", "waiting_steps", "engine")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    KERAS_VERSION_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    STATE_LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    STEP_POSSIBLE_FIELD_NUMBER: _ClassVar[int]
    STEP_OBSTACLE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    WAITING_STEPS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    file: str
    format: str
    keras_version: str
    dtype: DType
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    output_shape: _containers.RepeatedScalarFieldContainer[int]
    layers: _containers.RepeatedCompositeFieldContainer[Layer]
    state_layout: _containers.RepeatedCompositeFieldContainer[LayerStateLayout]
    parameter_count: int
    weight_bytes: int
    numerics: Numerics
    numerics_fingerprint: str
    step_possible: bool
    step_obstacle: str
    inputs: _containers.RepeatedCompositeFieldContainer[ModelInput]
    outputs: _containers.RepeatedCompositeFieldContainer[ModelOutput]
    remarks: _containers.RepeatedScalarFieldContainer[str]
    waiting_steps: int
    engine: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., file: _Optional[str] = ..., format: _Optional[str] = ..., keras_version: _Optional[str] = ..., dtype: _Optional[_Union[DType, str]] = ..., input_shape: _Optional[_Iterable[int]] = ..., output_shape: _Optional[_Iterable[int]] = ..., layers: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., state_layout: _Optional[_Iterable[_Union[LayerStateLayout, _Mapping]]] = ..., parameter_count: _Optional[int] = ..., weight_bytes: _Optional[int] = ..., numerics: _Optional[_Union[Numerics, str]] = ..., numerics_fingerprint: _Optional[str] = ..., step_possible: bool = ..., step_obstacle: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[ModelInput, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[ModelOutput, _Mapping]]] = ..., remarks: _Optional[_Iterable[str]] = ..., waiting_steps: _Optional[int] = ..., engine: _Optional[str] = ...) -> None: ...

class ModelInput(_message.Message):
    __slots__ = ("name", "shape", "vocabulary")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    vocabulary: int
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., vocabulary: _Optional[int] = ...) -> None: ...

class ModelOutput(_message.Message):
    __slots__ = ("name", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("name", "kind", "options", "weights", "inputs")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    options: _containers.ScalarMap[str, str]
    weights: _containers.RepeatedCompositeFieldContainer[Weight]
    inputs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., options: _Optional[_Mapping[str, str]] = ..., weights: _Optional[_Iterable[_Union[Weight, _Mapping]]] = ..., inputs: _Optional[_Iterable[str]] = ...) -> None: ...

class Weight(_message.Message):
    __slots__ = ("name", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class LayerStateLayout(_message.Message):
    __slots__ = ("layer", "units", "window_shape")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_SHAPE_FIELD_NUMBER: _ClassVar[int]
    layer: str
    units: int
    window_shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, layer: _Optional[str] = ..., units: _Optional[int] = ..., window_shape: _Optional[_Iterable[int]] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("model", "x", "state", "compare")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COMPARE_FIELD_NUMBER: _ClassVar[int]
    model: str
    x: Tensor
    state: State
    compare: bool
    def __init__(self, model: _Optional[str] = ..., x: _Optional[_Union[Tensor, _Mapping]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., compare: bool = ...) -> None: ...

class StepResponse(_message.Message):
    __slots__ = ("output", "state", "outputs", "discrepancy")
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    DISCREPANCY_FIELD_NUMBER: _ClassVar[int]
    output: Tensor
    state: State
    outputs: _containers.MessageMap[str, Tensor]
    discrepancy: _shadow_pb2.Comparison
    def __init__(self, output: _Optional[_Union[Tensor, _Mapping]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., outputs: _Optional[_Mapping[str, Tensor]] = ..., discrepancy: _Optional[_Union[_shadow_pb2.Comparison, _Mapping]] = ...) -> None: ...

class ForwardRequest(_message.Message):
    __slots__ = ("model", "x", "state", "lengths", "all_outputs", "inputs", "compare")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    ALL_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    COMPARE_FIELD_NUMBER: _ClassVar[int]
    model: str
    x: Tensor
    state: State
    lengths: _containers.RepeatedScalarFieldContainer[int]
    all_outputs: bool
    inputs: _containers.MessageMap[str, Tensor]
    compare: bool
    def __init__(self, model: _Optional[str] = ..., x: _Optional[_Union[Tensor, _Mapping]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., lengths: _Optional[_Iterable[int]] = ..., all_outputs: bool = ..., inputs: _Optional[_Mapping[str, Tensor]] = ..., compare: bool = ...) -> None: ...

class ForwardResponse(_message.Message):
    __slots__ = ("output", "state", "outputs", "discrepancy")
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    DISCREPANCY_FIELD_NUMBER: _ClassVar[int]
    output: Tensor
    state: State
    outputs: _containers.MessageMap[str, Tensor]
    discrepancy: _shadow_pb2.Comparison
    def __init__(self, output: _Optional[_Union[Tensor, _Mapping]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., outputs: _Optional[_Mapping[str, Tensor]] = ..., discrepancy: _Optional[_Union[_shadow_pb2.Comparison, _Mapping]] = ...) -> None: ...

class StreamStepsRequest(_message.Message):
    __slots__ = ("open", "steps", "checkpoint", "reset")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    open: StreamOpen
    steps: StreamInput
    checkpoint: StreamCheckpointRequest
    reset: StreamReset
    def __init__(self, open: _Optional[_Union[StreamOpen, _Mapping]] = ..., steps: _Optional[_Union[StreamInput, _Mapping]] = ..., checkpoint: _Optional[_Union[StreamCheckpointRequest, _Mapping]] = ..., reset: _Optional[_Union[StreamReset, _Mapping]] = ...) -> None: ...

class StreamOpen(_message.Message):
    __slots__ = ("model", "rows", "state", "model_digest", "numerics_fingerprint", "checkpoint_every", "outputs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_EVERY_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    rows: int
    state: State
    model_digest: str
    numerics_fingerprint: str
    checkpoint_every: int
    outputs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., rows: _Optional[int] = ..., state: _Optional[_Union[State, _Mapping]] = ..., model_digest: _Optional[str] = ..., numerics_fingerprint: _Optional[str] = ..., checkpoint_every: _Optional[int] = ..., outputs: _Optional[_Iterable[str]] = ...) -> None: ...

class StreamInput(_message.Message):
    __slots__ = ("number", "x", "compare")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    COMPARE_FIELD_NUMBER: _ClassVar[int]
    number: int
    x: Tensor
    compare: bool
    def __init__(self, number: _Optional[int] = ..., x: _Optional[_Union[Tensor, _Mapping]] = ..., compare: bool = ...) -> None: ...

class StreamCheckpointRequest(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class StreamReset(_message.Message):
    __slots__ = ("number", "rows", "state")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    number: int
    rows: _containers.RepeatedScalarFieldContainer[int]
    state: State
    def __init__(self, number: _Optional[int] = ..., rows: _Optional[_Iterable[int]] = ..., state: _Optional[_Union[State, _Mapping]] = ...) -> None: ...

class StreamStepsResponse(_message.Message):
    __slots__ = ("opened", "outputs", "checkpoint", "rejected", "going_away")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    GOING_AWAY_FIELD_NUMBER: _ClassVar[int]
    opened: StreamOpened
    outputs: StreamOutputs
    checkpoint: StreamCheckpoint
    rejected: StreamRejected
    going_away: StreamGoingAway
    def __init__(self, opened: _Optional[_Union[StreamOpened, _Mapping]] = ..., outputs: _Optional[_Union[StreamOutputs, _Mapping]] = ..., checkpoint: _Optional[_Union[StreamCheckpoint, _Mapping]] = ..., rejected: _Optional[_Union[StreamRejected, _Mapping]] = ..., going_away: _Optional[_Union[StreamGoingAway, _Mapping]] = ...) -> None: ...

class StreamOpened(_message.Message):
    __slots__ = ("rows", "model_digest", "numerics_fingerprint")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    rows: int
    model_digest: str
    numerics_fingerprint: str
    def __init__(self, rows: _Optional[int] = ..., model_digest: _Optional[str] = ..., numerics_fingerprint: _Optional[str] = ...) -> None: ...

class StreamOutputs(_message.Message):
    __slots__ = ("number", "output", "outputs", "state", "discrepancy")
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DISCREPANCY_FIELD_NUMBER: _ClassVar[int]
    number: int
    output: Tensor
    outputs: _containers.MessageMap[str, Tensor]
    state: State
    discrepancy: _shadow_pb2.Comparison
    def __init__(self, number: _Optional[int] = ..., output: _Optional[_Union[Tensor, _Mapping]] = ..., outputs: _Optional[_Mapping[str, Tensor]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., discrepancy: _Optional[_Union[_shadow_pb2.Comparison, _Mapping]] = ...) -> None: ...

class StreamCheckpoint(_message.Message):
    __slots__ = ("number", "state")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    number: int
    state: State
    def __init__(self, number: _Optional[int] = ..., state: _Optional[_Union[State, _Mapping]] = ...) -> None: ...

class StreamRejected(_message.Message):
    __slots__ = ("number", "code", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    code: int
    text: str
    def __init__(self, number: _Optional[int] = ..., code: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class StreamGoingAway(_message.Message):
    __slots__ = ("number", "state")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    number: int
    state: State
    def __init__(self, number: _Optional[int] = ..., state: _Optional[_Union[State, _Mapping]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

from lstmserve.v1 import shadow_pb2 as _shadow_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_BFLOAT16: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT64: _ClassVar[DataType]
    DATA_TYPE_INT32: _ClassVar[DataType]
    DATA_TYPE_INT64: _ClassVar[DataType]

class Numerics(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NUMERICS_UNSPECIFIED: _ClassVar[Numerics]
    NUMERICS_EXACT: _ClassVar[Numerics]
    NUMERICS_FAST: _ClassVar[Numerics]

class ModelFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_FORMAT_UNSPECIFIED: _ClassVar[ModelFormat]
    MODEL_FORMAT_KERAS_ZIP: _ClassVar[ModelFormat]
    MODEL_FORMAT_KERAS_FOLDER: _ClassVar[ModelFormat]
    MODEL_FORMAT_KERAS_HDF5: _ClassVar[ModelFormat]
    MODEL_FORMAT_KERAS_WEIGHTS: _ClassVar[ModelFormat]
    MODEL_FORMAT_KERAS_SHARDS: _ClassVar[ModelFormat]
    MODEL_FORMAT_NUMPY_NPZ: _ClassVar[ModelFormat]
    MODEL_FORMAT_TF_SAVEDMODEL: _ClassVar[ModelFormat]
    MODEL_FORMAT_TF_CHECKPOINT: _ClassVar[ModelFormat]

class InputKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INPUT_KIND_UNSPECIFIED: _ClassVar[InputKind]
    INPUT_KIND_FEATURES: _ClassVar[InputKind]
    INPUT_KIND_TOKEN_IDS: _ClassVar[InputKind]

class StateKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_KIND_UNSPECIFIED: _ClassVar[StateKind]
    STATE_KIND_HIDDEN_AND_CELL: _ClassVar[StateKind]
    STATE_KIND_WINDOW: _ClassVar[StateKind]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_BFLOAT16: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_FLOAT64: DataType
DATA_TYPE_INT32: DataType
DATA_TYPE_INT64: DataType
NUMERICS_UNSPECIFIED: Numerics
NUMERICS_EXACT: Numerics
NUMERICS_FAST: Numerics
MODEL_FORMAT_UNSPECIFIED: ModelFormat
MODEL_FORMAT_KERAS_ZIP: ModelFormat
MODEL_FORMAT_KERAS_FOLDER: ModelFormat
MODEL_FORMAT_KERAS_HDF5: ModelFormat
MODEL_FORMAT_KERAS_WEIGHTS: ModelFormat
MODEL_FORMAT_KERAS_SHARDS: ModelFormat
MODEL_FORMAT_NUMPY_NPZ: ModelFormat
MODEL_FORMAT_TF_SAVEDMODEL: ModelFormat
MODEL_FORMAT_TF_CHECKPOINT: ModelFormat
INPUT_KIND_UNSPECIFIED: InputKind
INPUT_KIND_FEATURES: InputKind
INPUT_KIND_TOKEN_IDS: InputKind
STATE_KIND_UNSPECIFIED: StateKind
STATE_KIND_HIDDEN_AND_CELL: StateKind
STATE_KIND_WINDOW: StateKind

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data", "values")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("layers", "model_digest", "numerics_fingerprint", "steps_seen")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    STEPS_SEEN_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedCompositeFieldContainer[LayerState]
    model_digest: str
    numerics_fingerprint: str
    steps_seen: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, layers: _Optional[_Iterable[_Union[LayerState, _Mapping]]] = ..., model_digest: _Optional[str] = ..., numerics_fingerprint: _Optional[str] = ..., steps_seen: _Optional[_Iterable[int]] = ...) -> None: ...

class LayerState(_message.Message):
    __slots__ = ("h", "c", "layer", "window", "steps_received")
    H_FIELD_NUMBER: _ClassVar[int]
    C_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    STEPS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    h: Tensor
    c: Tensor
    layer: str
    window: Tensor
    steps_received: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, h: _Optional[_Union[Tensor, _Mapping]] = ..., c: _Optional[_Union[Tensor, _Mapping]] = ..., layer: _Optional[str] = ..., window: _Optional[_Union[Tensor, _Mapping]] = ..., steps_received: _Optional[_Iterable[int]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "digest", "file", "format", "keras_version", "dtype", "input_shape", "output_shape", "layers", "state_layout", "parameter_count", "weight_bytes", "numerics", "numerics_fingerprint", "supports_step", "step_unsupported_reason", "inputs", "outputs", "remarks", "waiting_steps", "engine")
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
    SUPPORTS_STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_UNSUPPORTED_REASON_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    WAITING_STEPS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    file: str
    format: ModelFormat
    keras_version: str
    dtype: DataType
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    output_shape: _containers.RepeatedScalarFieldContainer[int]
    layers: _containers.RepeatedCompositeFieldContainer[Layer]
    state_layout: _containers.RepeatedCompositeFieldContainer[LayerStateLayout]
    parameter_count: int
    weight_bytes: int
    numerics: Numerics
    numerics_fingerprint: str
    supports_step: bool
    step_unsupported_reason: str
    inputs: _containers.RepeatedCompositeFieldContainer[ModelInput]
    outputs: _containers.RepeatedCompositeFieldContainer[ModelOutput]
    remarks: _containers.RepeatedScalarFieldContainer[str]
    waiting_steps: int
    engine: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., file: _Optional[str] = ..., format: _Optional[_Union[ModelFormat, str]] = ..., keras_version: _Optional[str] = ..., dtype: _Optional[_Union[DataType, str]] = ..., input_shape: _Optional[_Iterable[int]] = ..., output_shape: _Optional[_Iterable[int]] = ..., layers: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., state_layout: _Optional[_Iterable[_Union[LayerStateLayout, _Mapping]]] = ..., parameter_count: _Optional[int] = ..., weight_bytes: _Optional[int] = ..., numerics: _Optional[_Union[Numerics, str]] = ..., numerics_fingerprint: _Optional[str] = ..., supports_step: bool = ..., step_unsupported_reason: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[ModelInput, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[ModelOutput, _Mapping]]] = ..., remarks: _Optional[_Iterable[str]] = ..., waiting_steps: _Optional[int] = ..., engine: _Optional[str] = ...) -> None: ...

class ModelInput(_message.Message):
    __slots__ = ("name", "shape", "vocabulary", "kind", "declared_time_steps")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DECLARED_TIME_STEPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    vocabulary: int
    kind: InputKind
    declared_time_steps: int
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., vocabulary: _Optional[int] = ..., kind: _Optional[_Union[InputKind, str]] = ..., declared_time_steps: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("layer", "units", "window_shape", "kind")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_SHAPE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    layer: str
    units: int
    window_shape: _containers.RepeatedScalarFieldContainer[int]
    kind: StateKind
    def __init__(self, layer: _Optional[str] = ..., units: _Optional[int] = ..., window_shape: _Optional[_Iterable[int]] = ..., kind: _Optional[_Union[StateKind, str]] = ...) -> None: ...

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
    __slots__ = ("output", "state", "outputs", "comparison")
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
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    output: Tensor
    state: State
    outputs: _containers.MessageMap[str, Tensor]
    comparison: _shadow_pb2.Comparison
    def __init__(self, output: _Optional[_Union[Tensor, _Mapping]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., outputs: _Optional[_Mapping[str, Tensor]] = ..., comparison: _Optional[_Union[_shadow_pb2.Comparison, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("output", "state", "outputs", "comparison")
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
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    output: Tensor
    state: State
    outputs: _containers.MessageMap[str, Tensor]
    comparison: _shadow_pb2.Comparison
    def __init__(self, output: _Optional[_Union[Tensor, _Mapping]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., outputs: _Optional[_Mapping[str, Tensor]] = ..., comparison: _Optional[_Union[_shadow_pb2.Comparison, _Mapping]] = ...) -> None: ...

class StreamStepsRequest(_message.Message):
    __slots__ = ("open", "input", "checkpoint", "reset")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    open: StreamOpen
    input: StepInput
    checkpoint: StreamCheckpointRequest
    reset: StreamReset
    def __init__(self, open: _Optional[_Union[StreamOpen, _Mapping]] = ..., input: _Optional[_Union[StepInput, _Mapping]] = ..., checkpoint: _Optional[_Union[StreamCheckpointRequest, _Mapping]] = ..., reset: _Optional[_Union[StreamReset, _Mapping]] = ...) -> None: ...

class StreamOpen(_message.Message):
    __slots__ = ("model", "row_count", "state", "model_digest", "numerics_fingerprint", "checkpoint_interval_steps", "outputs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_INTERVAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    row_count: int
    state: State
    model_digest: str
    numerics_fingerprint: str
    checkpoint_interval_steps: int
    outputs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., row_count: _Optional[int] = ..., state: _Optional[_Union[State, _Mapping]] = ..., model_digest: _Optional[str] = ..., numerics_fingerprint: _Optional[str] = ..., checkpoint_interval_steps: _Optional[int] = ..., outputs: _Optional[_Iterable[str]] = ...) -> None: ...

class StepInput(_message.Message):
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
    __slots__ = ("opened", "output", "checkpoint", "rejected", "going_away")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    GOING_AWAY_FIELD_NUMBER: _ClassVar[int]
    opened: StreamOpened
    output: StepOutput
    checkpoint: StreamCheckpoint
    rejected: StreamRejected
    going_away: StreamGoingAway
    def __init__(self, opened: _Optional[_Union[StreamOpened, _Mapping]] = ..., output: _Optional[_Union[StepOutput, _Mapping]] = ..., checkpoint: _Optional[_Union[StreamCheckpoint, _Mapping]] = ..., rejected: _Optional[_Union[StreamRejected, _Mapping]] = ..., going_away: _Optional[_Union[StreamGoingAway, _Mapping]] = ...) -> None: ...

class StreamOpened(_message.Message):
    __slots__ = ("row_count", "model_digest", "numerics_fingerprint")
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    row_count: int
    model_digest: str
    numerics_fingerprint: str
    def __init__(self, row_count: _Optional[int] = ..., model_digest: _Optional[str] = ..., numerics_fingerprint: _Optional[str] = ...) -> None: ...

class StepOutput(_message.Message):
    __slots__ = ("number", "output", "outputs", "state", "comparison")
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
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    number: int
    output: Tensor
    outputs: _containers.MessageMap[str, Tensor]
    state: State
    comparison: _shadow_pb2.Comparison
    def __init__(self, number: _Optional[int] = ..., output: _Optional[_Union[Tensor, _Mapping]] = ..., outputs: _Optional[_Mapping[str, Tensor]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., comparison: _Optional[_Union[_shadow_pb2.Comparison, _Mapping]] = ...) -> None: ...

class StreamCheckpoint(_message.Message):
    __slots__ = ("number", "state")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    number: int
    state: State
    def __init__(self, number: _Optional[int] = ..., state: _Optional[_Union[State, _Mapping]] = ...) -> None: ...

class StreamRejected(_message.Message):
    __slots__ = ("number", "code", "text", "field", "reason")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    number: int
    code: int
    text: str
    field: str
    reason: str
    def __init__(self, number: _Optional[int] = ..., code: _Optional[int] = ..., text: _Optional[str] = ..., field: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class StreamGoingAway(_message.Message):
    __slots__ = ("number", "state")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    number: int
    state: State
    def __init__(self, number: _Optional[int] = ..., state: _Optional[_Union[State, _Mapping]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

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

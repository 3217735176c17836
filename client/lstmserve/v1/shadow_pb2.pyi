import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_AGREES: _ClassVar[Verdict]
    VERDICT_DIFFERS: _ClassVar[Verdict]
    VERDICT_NOT_COMPARABLE: _ClassVar[Verdict]
    VERDICT_NOT_COMPARED: _ClassVar[Verdict]

class WitnessKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WITNESS_KIND_UNSPECIFIED: _ClassVar[WitnessKind]
    WITNESS_KIND_KERAS_FILE: _ClassVar[WitnessKind]
    WITNESS_KIND_TF_KERAS_FILE: _ClassVar[WitnessKind]
    WITNESS_KIND_KERAS_LAYERS: _ClassVar[WitnessKind]

class ReferenceStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFERENCE_STATUS_UNSPECIFIED: _ClassVar[ReferenceStatus]
    REFERENCE_STATUS_OFF: _ClassVar[ReferenceStatus]
    REFERENCE_STATUS_STARTING: _ClassVar[ReferenceStatus]
    REFERENCE_STATUS_UP: _ClassVar[ReferenceStatus]
    REFERENCE_STATUS_DOWN: _ClassVar[ReferenceStatus]
VERDICT_UNSPECIFIED: Verdict
VERDICT_AGREES: Verdict
VERDICT_DIFFERS: Verdict
VERDICT_NOT_COMPARABLE: Verdict
VERDICT_NOT_COMPARED: Verdict
WITNESS_KIND_UNSPECIFIED: WitnessKind
WITNESS_KIND_KERAS_FILE: WitnessKind
WITNESS_KIND_TF_KERAS_FILE: WitnessKind
WITNESS_KIND_KERAS_LAYERS: WitnessKind
REFERENCE_STATUS_UNSPECIFIED: ReferenceStatus
REFERENCE_STATUS_OFF: ReferenceStatus
REFERENCE_STATUS_STARTING: ReferenceStatus
REFERENCE_STATUS_UP: ReferenceStatus
REFERENCE_STATUS_DOWN: ReferenceStatus

class GetReportRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetReportResponse(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: ShadowReport
    def __init__(self, report: _Optional[_Union[ShadowReport, _Mapping]] = ...) -> None: ...

class WatchDiscrepanciesRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class WatchDiscrepanciesResponse(_message.Message):
    __slots__ = ("discrepancy", "left_out")
    DISCREPANCY_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    discrepancy: Discrepancy
    left_out: int
    def __init__(self, discrepancy: _Optional[_Union[Discrepancy, _Mapping]] = ..., left_out: _Optional[int] = ...) -> None: ...

class ShadowReport(_message.Message):
    __slots__ = ("mode", "since", "reference", "models", "process", "bundles_written", "bundles_failed")
    MODE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_WRITTEN_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FAILED_FIELD_NUMBER: _ClassVar[int]
    mode: str
    since: _timestamp_pb2.Timestamp
    reference: ReferenceProcess
    models: _containers.RepeatedCompositeFieldContainer[ModelReport]
    process: int
    bundles_written: int
    bundles_failed: int
    def __init__(self, mode: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reference: _Optional[_Union[ReferenceProcess, _Mapping]] = ..., models: _Optional[_Iterable[_Union[ModelReport, _Mapping]]] = ..., process: _Optional[int] = ..., bundles_written: _Optional[int] = ..., bundles_failed: _Optional[int] = ...) -> None: ...

class ReferenceProcess(_message.Message):
    __slots__ = ("status", "reason", "restarts", "versions")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    status: ReferenceStatus
    reason: str
    restarts: int
    versions: _containers.ScalarMap[str, str]
    def __init__(self, status: _Optional[_Union[ReferenceStatus, str]] = ..., reason: _Optional[str] = ..., restarts: _Optional[int] = ..., versions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ModelReport(_message.Message):
    __slots__ = ("model", "digest", "witness", "tolerances", "noise_floor", "coverage", "totals", "drift", "worst")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WITNESS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCES_FIELD_NUMBER: _ClassVar[int]
    NOISE_FLOOR_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    WORST_FIELD_NUMBER: _ClassVar[int]
    model: str
    digest: str
    witness: Witness
    tolerances: Tolerances
    noise_floor: float
    coverage: Coverage
    totals: _containers.RepeatedCompositeFieldContainer[Totals]
    drift: _containers.RepeatedCompositeFieldContainer[Totals]
    worst: _containers.RepeatedCompositeFieldContainer[Discrepancy]
    def __init__(self, model: _Optional[str] = ..., digest: _Optional[str] = ..., witness: _Optional[_Union[Witness, _Mapping]] = ..., tolerances: _Optional[_Union[Tolerances, _Mapping]] = ..., noise_floor: _Optional[float] = ..., coverage: _Optional[_Union[Coverage, _Mapping]] = ..., totals: _Optional[_Iterable[_Union[Totals, _Mapping]]] = ..., drift: _Optional[_Iterable[_Union[Totals, _Mapping]]] = ..., worst: _Optional[_Iterable[_Union[Discrepancy, _Mapping]]] = ...) -> None: ...

class Witness(_message.Message):
    __slots__ = ("kind", "text", "whole_model_difference", "differing_weights", "whole_model_sensitivity")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WHOLE_MODEL_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    DIFFERING_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    WHOLE_MODEL_SENSITIVITY_FIELD_NUMBER: _ClassVar[int]
    kind: WitnessKind
    text: str
    whole_model_difference: float
    differing_weights: _containers.RepeatedScalarFieldContainer[str]
    whole_model_sensitivity: float
    def __init__(self, kind: _Optional[_Union[WitnessKind, str]] = ..., text: _Optional[str] = ..., whole_model_difference: _Optional[float] = ..., differing_weights: _Optional[_Iterable[str]] = ..., whole_model_sensitivity: _Optional[float] = ...) -> None: ...

class Tolerances(_message.Message):
    __slots__ = ("h", "c", "unbounded")
    H_FIELD_NUMBER: _ClassVar[int]
    C_FIELD_NUMBER: _ClassVar[int]
    UNBOUNDED_FIELD_NUMBER: _ClassVar[int]
    h: float
    c: float
    unbounded: float
    def __init__(self, h: _Optional[float] = ..., c: _Optional[float] = ..., unbounded: _Optional[float] = ...) -> None: ...

class Coverage(_message.Message):
    __slots__ = ("offered", "sampled", "compared", "steps", "discrepant", "dropped", "not_comparable", "errors", "partly")
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class NotComparableEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class PartlyEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    OFFERED_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_FIELD_NUMBER: _ClassVar[int]
    COMPARED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    DISCREPANT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    NOT_COMPARABLE_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    PARTLY_FIELD_NUMBER: _ClassVar[int]
    offered: int
    sampled: int
    compared: int
    steps: int
    discrepant: int
    dropped: _containers.ScalarMap[str, int]
    not_comparable: _containers.ScalarMap[str, int]
    errors: _containers.ScalarMap[str, int]
    partly: _containers.ScalarMap[str, int]
    def __init__(self, offered: _Optional[int] = ..., sampled: _Optional[int] = ..., compared: _Optional[int] = ..., steps: _Optional[int] = ..., discrepant: _Optional[int] = ..., dropped: _Optional[_Mapping[str, int]] = ..., not_comparable: _Optional[_Mapping[str, int]] = ..., errors: _Optional[_Mapping[str, int]] = ..., partly: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Totals(_message.Message):
    __slots__ = ("layer", "array", "values", "max_absolute", "mean_absolute", "max_relative", "mean_relative", "max_ulp", "margin", "over", "nan_mismatches", "infinity_mismatches", "by_difference", "by_ulp", "ours_closer", "reference_closer")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    MAX_ABSOLUTE_FIELD_NUMBER: _ClassVar[int]
    MEAN_ABSOLUTE_FIELD_NUMBER: _ClassVar[int]
    MAX_RELATIVE_FIELD_NUMBER: _ClassVar[int]
    MEAN_RELATIVE_FIELD_NUMBER: _ClassVar[int]
    MAX_ULP_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    OVER_FIELD_NUMBER: _ClassVar[int]
    NAN_MISMATCHES_FIELD_NUMBER: _ClassVar[int]
    INFINITY_MISMATCHES_FIELD_NUMBER: _ClassVar[int]
    BY_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    BY_ULP_FIELD_NUMBER: _ClassVar[int]
    OURS_CLOSER_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_CLOSER_FIELD_NUMBER: _ClassVar[int]
    layer: str
    array: str
    values: int
    max_absolute: float
    mean_absolute: float
    max_relative: float
    mean_relative: float
    max_ulp: int
    margin: float
    over: int
    nan_mismatches: int
    infinity_mismatches: int
    by_difference: _containers.RepeatedScalarFieldContainer[int]
    by_ulp: _containers.RepeatedScalarFieldContainer[int]
    ours_closer: int
    reference_closer: int
    def __init__(self, layer: _Optional[str] = ..., array: _Optional[str] = ..., values: _Optional[int] = ..., max_absolute: _Optional[float] = ..., mean_absolute: _Optional[float] = ..., max_relative: _Optional[float] = ..., mean_relative: _Optional[float] = ..., max_ulp: _Optional[int] = ..., margin: _Optional[float] = ..., over: _Optional[int] = ..., nan_mismatches: _Optional[int] = ..., infinity_mismatches: _Optional[int] = ..., by_difference: _Optional[_Iterable[int]] = ..., by_ulp: _Optional[_Iterable[int]] = ..., ours_closer: _Optional[int] = ..., reference_closer: _Optional[int] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("verdict", "reason", "witness", "tolerances", "totals", "drift", "first", "below_noise", "partly", "odd_units")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WITNESS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCES_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    BELOW_NOISE_FIELD_NUMBER: _ClassVar[int]
    PARTLY_FIELD_NUMBER: _ClassVar[int]
    ODD_UNITS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    reason: str
    witness: Witness
    tolerances: Tolerances
    totals: _containers.RepeatedCompositeFieldContainer[Totals]
    drift: _containers.RepeatedCompositeFieldContainer[Totals]
    first: Place
    below_noise: bool
    partly: _containers.RepeatedScalarFieldContainer[str]
    odd_units: _containers.RepeatedCompositeFieldContainer[OddUnit]
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., reason: _Optional[str] = ..., witness: _Optional[_Union[Witness, _Mapping]] = ..., tolerances: _Optional[_Union[Tolerances, _Mapping]] = ..., totals: _Optional[_Iterable[_Union[Totals, _Mapping]]] = ..., drift: _Optional[_Iterable[_Union[Totals, _Mapping]]] = ..., first: _Optional[_Union[Place, _Mapping]] = ..., below_noise: bool = ..., partly: _Optional[_Iterable[str]] = ..., odd_units: _Optional[_Iterable[_Union[OddUnit, _Mapping]]] = ...) -> None: ...

class OddUnit(_message.Message):
    __slots__ = ("layer", "array", "unit", "rms", "times_others", "steps")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    RMS_FIELD_NUMBER: _ClassVar[int]
    TIMES_OTHERS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    layer: str
    array: str
    unit: int
    rms: float
    times_others: float
    steps: int
    def __init__(self, layer: _Optional[str] = ..., array: _Optional[str] = ..., unit: _Optional[int] = ..., rms: _Optional[float] = ..., times_others: _Optional[float] = ..., steps: _Optional[int] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("layer", "array", "row", "step", "unit", "gates", "ours", "reference", "float64", "closer")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    OURS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    FLOAT64_FIELD_NUMBER: _ClassVar[int]
    CLOSER_FIELD_NUMBER: _ClassVar[int]
    layer: str
    array: str
    row: int
    step: int
    unit: int
    gates: str
    ours: float
    reference: float
    float64: float
    closer: str
    def __init__(self, layer: _Optional[str] = ..., array: _Optional[str] = ..., row: _Optional[int] = ..., step: _Optional[int] = ..., unit: _Optional[int] = ..., gates: _Optional[str] = ..., ours: _Optional[float] = ..., reference: _Optional[float] = ..., float64: _Optional[float] = ..., closer: _Optional[str] = ...) -> None: ...

class Discrepancy(_message.Message):
    __slots__ = ("model", "method", "when", "rows", "steps", "comparison", "bundle")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    WHEN_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    model: str
    method: str
    when: _timestamp_pb2.Timestamp
    rows: int
    steps: int
    comparison: Comparison
    bundle: str
    def __init__(self, model: _Optional[str] = ..., method: _Optional[str] = ..., when: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rows: _Optional[int] = ..., steps: _Optional[int] = ..., comparison: _Optional[_Union[Comparison, _Mapping]] = ..., bundle: _Optional[str] = ...) -> None: ...

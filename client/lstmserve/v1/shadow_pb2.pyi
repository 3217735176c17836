from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_AGREES: _ClassVar[Verdict]
    VERDICT_DIFFERS: _ClassVar[Verdict]
    VERDICT_NOT_COMPARABLE: _ClassVar[Verdict]
    VERDICT_NOT_COMPARED: _ClassVar[Verdict]

class ReferenceModelKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFERENCE_MODEL_KIND_UNSPECIFIED: _ClassVar[ReferenceModelKind]
    REFERENCE_MODEL_KIND_KERAS_FILE: _ClassVar[ReferenceModelKind]
    REFERENCE_MODEL_KIND_TF_KERAS_FILE: _ClassVar[ReferenceModelKind]
    REFERENCE_MODEL_KIND_KERAS_LAYERS: _ClassVar[ReferenceModelKind]

class ReferenceStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFERENCE_STATUS_UNSPECIFIED: _ClassVar[ReferenceStatus]
    REFERENCE_STATUS_OFF: _ClassVar[ReferenceStatus]
    REFERENCE_STATUS_STARTING: _ClassVar[ReferenceStatus]
    REFERENCE_STATUS_UP: _ClassVar[ReferenceStatus]
    REFERENCE_STATUS_DOWN: _ClassVar[ReferenceStatus]

class ArrayKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARRAY_KIND_UNSPECIFIED: _ClassVar[ArrayKind]
    ARRAY_KIND_H: _ClassVar[ArrayKind]
    ARRAY_KIND_C: _ClassVar[ArrayKind]
    ARRAY_KIND_OUTPUT: _ClassVar[ArrayKind]

class Closer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLOSER_UNSPECIFIED: _ClassVar[Closer]
    CLOSER_OURS: _ClassVar[Closer]
    CLOSER_REFERENCE: _ClassVar[Closer]
VERDICT_UNSPECIFIED: Verdict
VERDICT_AGREES: Verdict
VERDICT_DIFFERS: Verdict
VERDICT_NOT_COMPARABLE: Verdict
VERDICT_NOT_COMPARED: Verdict
REFERENCE_MODEL_KIND_UNSPECIFIED: ReferenceModelKind
REFERENCE_MODEL_KIND_KERAS_FILE: ReferenceModelKind
REFERENCE_MODEL_KIND_TF_KERAS_FILE: ReferenceModelKind
REFERENCE_MODEL_KIND_KERAS_LAYERS: ReferenceModelKind
REFERENCE_STATUS_UNSPECIFIED: ReferenceStatus
REFERENCE_STATUS_OFF: ReferenceStatus
REFERENCE_STATUS_STARTING: ReferenceStatus
REFERENCE_STATUS_UP: ReferenceStatus
REFERENCE_STATUS_DOWN: ReferenceStatus
ARRAY_KIND_UNSPECIFIED: ArrayKind
ARRAY_KIND_H: ArrayKind
ARRAY_KIND_C: ArrayKind
ARRAY_KIND_OUTPUT: ArrayKind
CLOSER_UNSPECIFIED: Closer
CLOSER_OURS: Closer
CLOSER_REFERENCE: Closer

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
    __slots__ = ("discrepancy", "dropped_count")
    DISCREPANCY_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    discrepancy: Discrepancy
    dropped_count: int
    def __init__(self, discrepancy: _Optional[_Union[Discrepancy, _Mapping]] = ..., dropped_count: _Optional[int] = ...) -> None: ...

class ShadowReport(_message.Message):
    __slots__ = ("sampling_rate", "start_time", "reference_process", "models", "process_id", "written_bundle_count", "failed_bundle_count")
    SAMPLING_RATE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_PROCESS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_BUNDLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_BUNDLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    sampling_rate: float
    start_time: _timestamp_pb2.Timestamp
    reference_process: ReferenceProcess
    models: _containers.RepeatedCompositeFieldContainer[ModelReport]
    process_id: int
    written_bundle_count: int
    failed_bundle_count: int
    def __init__(self, sampling_rate: _Optional[float] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., reference_process: _Optional[_Union[ReferenceProcess, _Mapping]] = ..., models: _Optional[_Iterable[_Union[ModelReport, _Mapping]]] = ..., process_id: _Optional[int] = ..., written_bundle_count: _Optional[int] = ..., failed_bundle_count: _Optional[int] = ...) -> None: ...

class ReferenceProcess(_message.Message):
    __slots__ = ("status", "reason", "restart_count", "versions")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESTART_COUNT_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    status: ReferenceStatus
    reason: str
    restart_count: int
    versions: _containers.ScalarMap[str, str]
    def __init__(self, status: _Optional[_Union[ReferenceStatus, str]] = ..., reason: _Optional[str] = ..., restart_count: _Optional[int] = ..., versions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ModelReport(_message.Message):
    __slots__ = ("model", "digest", "reference_model", "tolerances", "noise_floor", "coverage", "teacher_forced", "free_running", "worst")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_MODEL_FIELD_NUMBER: _ClassVar[int]
    TOLERANCES_FIELD_NUMBER: _ClassVar[int]
    NOISE_FLOOR_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    TEACHER_FORCED_FIELD_NUMBER: _ClassVar[int]
    FREE_RUNNING_FIELD_NUMBER: _ClassVar[int]
    WORST_FIELD_NUMBER: _ClassVar[int]
    model: str
    digest: str
    reference_model: ReferenceModel
    tolerances: Tolerances
    noise_floor: float
    coverage: Coverage
    teacher_forced: _containers.RepeatedCompositeFieldContainer[DifferenceStats]
    free_running: _containers.RepeatedCompositeFieldContainer[DifferenceStats]
    worst: _containers.RepeatedCompositeFieldContainer[Discrepancy]
    def __init__(self, model: _Optional[str] = ..., digest: _Optional[str] = ..., reference_model: _Optional[_Union[ReferenceModel, _Mapping]] = ..., tolerances: _Optional[_Union[Tolerances, _Mapping]] = ..., noise_floor: _Optional[float] = ..., coverage: _Optional[_Union[Coverage, _Mapping]] = ..., teacher_forced: _Optional[_Iterable[_Union[DifferenceStats, _Mapping]]] = ..., free_running: _Optional[_Iterable[_Union[DifferenceStats, _Mapping]]] = ..., worst: _Optional[_Iterable[_Union[Discrepancy, _Mapping]]] = ...) -> None: ...

class ReferenceModel(_message.Message):
    __slots__ = ("kind", "text", "whole_model_difference", "differing_weights", "whole_model_sensitivity")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WHOLE_MODEL_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    DIFFERING_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    WHOLE_MODEL_SENSITIVITY_FIELD_NUMBER: _ClassVar[int]
    kind: ReferenceModelKind
    text: str
    whole_model_difference: float
    differing_weights: _containers.RepeatedScalarFieldContainer[str]
    whole_model_sensitivity: float
    def __init__(self, kind: _Optional[_Union[ReferenceModelKind, str]] = ..., text: _Optional[str] = ..., whole_model_difference: _Optional[float] = ..., differing_weights: _Optional[_Iterable[str]] = ..., whole_model_sensitivity: _Optional[float] = ...) -> None: ...

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
    __slots__ = ("offered_count", "sampled_count", "compared_count", "row_step_count", "discrepant_count", "dropped_counts", "not_comparable_counts", "error_counts", "partial_counts")
    class DroppedCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class NotComparableCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ErrorCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class PartialCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    OFFERED_COUNT_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPARED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROW_STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    DISCREPANT_COUNT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNTS_FIELD_NUMBER: _ClassVar[int]
    NOT_COMPARABLE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_COUNTS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_COUNTS_FIELD_NUMBER: _ClassVar[int]
    offered_count: int
    sampled_count: int
    compared_count: int
    row_step_count: int
    discrepant_count: int
    dropped_counts: _containers.ScalarMap[str, int]
    not_comparable_counts: _containers.ScalarMap[str, int]
    error_counts: _containers.ScalarMap[str, int]
    partial_counts: _containers.ScalarMap[str, int]
    def __init__(self, offered_count: _Optional[int] = ..., sampled_count: _Optional[int] = ..., compared_count: _Optional[int] = ..., row_step_count: _Optional[int] = ..., discrepant_count: _Optional[int] = ..., dropped_counts: _Optional[_Mapping[str, int]] = ..., not_comparable_counts: _Optional[_Mapping[str, int]] = ..., error_counts: _Optional[_Mapping[str, int]] = ..., partial_counts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class DifferenceStats(_message.Message):
    __slots__ = ("layer", "array", "value_count", "max_absolute", "mean_absolute", "max_relative", "mean_relative", "max_ulp", "tolerance_ratio", "over_tolerance_count", "nan_mismatch_count", "infinity_mismatch_count", "difference_histogram", "ulp_histogram", "ours_closer_count", "reference_closer_count")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    VALUE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_ABSOLUTE_FIELD_NUMBER: _ClassVar[int]
    MEAN_ABSOLUTE_FIELD_NUMBER: _ClassVar[int]
    MAX_RELATIVE_FIELD_NUMBER: _ClassVar[int]
    MEAN_RELATIVE_FIELD_NUMBER: _ClassVar[int]
    MAX_ULP_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_RATIO_FIELD_NUMBER: _ClassVar[int]
    OVER_TOLERANCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    NAN_MISMATCH_COUNT_FIELD_NUMBER: _ClassVar[int]
    INFINITY_MISMATCH_COUNT_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    ULP_HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    OURS_CLOSER_COUNT_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_CLOSER_COUNT_FIELD_NUMBER: _ClassVar[int]
    layer: str
    array: ArrayKind
    value_count: int
    max_absolute: float
    mean_absolute: float
    max_relative: float
    mean_relative: float
    max_ulp: int
    tolerance_ratio: float
    over_tolerance_count: int
    nan_mismatch_count: int
    infinity_mismatch_count: int
    difference_histogram: _containers.RepeatedScalarFieldContainer[int]
    ulp_histogram: _containers.RepeatedScalarFieldContainer[int]
    ours_closer_count: int
    reference_closer_count: int
    def __init__(self, layer: _Optional[str] = ..., array: _Optional[_Union[ArrayKind, str]] = ..., value_count: _Optional[int] = ..., max_absolute: _Optional[float] = ..., mean_absolute: _Optional[float] = ..., max_relative: _Optional[float] = ..., mean_relative: _Optional[float] = ..., max_ulp: _Optional[int] = ..., tolerance_ratio: _Optional[float] = ..., over_tolerance_count: _Optional[int] = ..., nan_mismatch_count: _Optional[int] = ..., infinity_mismatch_count: _Optional[int] = ..., difference_histogram: _Optional[_Iterable[int]] = ..., ulp_histogram: _Optional[_Iterable[int]] = ..., ours_closer_count: _Optional[int] = ..., reference_closer_count: _Optional[int] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("verdict", "reason", "reference_model", "tolerances", "teacher_forced", "free_running", "first_location", "below_noise", "partial_reasons", "outlier_units")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_MODEL_FIELD_NUMBER: _ClassVar[int]
    TOLERANCES_FIELD_NUMBER: _ClassVar[int]
    TEACHER_FORCED_FIELD_NUMBER: _ClassVar[int]
    FREE_RUNNING_FIELD_NUMBER: _ClassVar[int]
    FIRST_LOCATION_FIELD_NUMBER: _ClassVar[int]
    BELOW_NOISE_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_REASONS_FIELD_NUMBER: _ClassVar[int]
    OUTLIER_UNITS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    reason: str
    reference_model: ReferenceModel
    tolerances: Tolerances
    teacher_forced: _containers.RepeatedCompositeFieldContainer[DifferenceStats]
    free_running: _containers.RepeatedCompositeFieldContainer[DifferenceStats]
    first_location: Location
    below_noise: bool
    partial_reasons: _containers.RepeatedScalarFieldContainer[str]
    outlier_units: _containers.RepeatedCompositeFieldContainer[OutlierUnit]
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., reason: _Optional[str] = ..., reference_model: _Optional[_Union[ReferenceModel, _Mapping]] = ..., tolerances: _Optional[_Union[Tolerances, _Mapping]] = ..., teacher_forced: _Optional[_Iterable[_Union[DifferenceStats, _Mapping]]] = ..., free_running: _Optional[_Iterable[_Union[DifferenceStats, _Mapping]]] = ..., first_location: _Optional[_Union[Location, _Mapping]] = ..., below_noise: bool = ..., partial_reasons: _Optional[_Iterable[str]] = ..., outlier_units: _Optional[_Iterable[_Union[OutlierUnit, _Mapping]]] = ...) -> None: ...

class OutlierUnit(_message.Message):
    __slots__ = ("layer", "array", "unit", "rms", "ratio_to_median", "row_step_count")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    RMS_FIELD_NUMBER: _ClassVar[int]
    RATIO_TO_MEDIAN_FIELD_NUMBER: _ClassVar[int]
    ROW_STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    layer: str
    array: ArrayKind
    unit: int
    rms: float
    ratio_to_median: float
    row_step_count: int
    def __init__(self, layer: _Optional[str] = ..., array: _Optional[_Union[ArrayKind, str]] = ..., unit: _Optional[int] = ..., rms: _Optional[float] = ..., ratio_to_median: _Optional[float] = ..., row_step_count: _Optional[int] = ...) -> None: ...

class Location(_message.Message):
    __slots__ = ("layer", "array", "row", "step", "unit", "gates", "ours", "reference", "exact", "closer")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    OURS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    CLOSER_FIELD_NUMBER: _ClassVar[int]
    layer: str
    array: ArrayKind
    row: int
    step: int
    unit: int
    gates: str
    ours: float
    reference: float
    exact: float
    closer: Closer
    def __init__(self, layer: _Optional[str] = ..., array: _Optional[_Union[ArrayKind, str]] = ..., row: _Optional[int] = ..., step: _Optional[int] = ..., unit: _Optional[int] = ..., gates: _Optional[str] = ..., ours: _Optional[float] = ..., reference: _Optional[float] = ..., exact: _Optional[float] = ..., closer: _Optional[_Union[Closer, str]] = ...) -> None: ...

class Discrepancy(_message.Message):
    __slots__ = ("model", "method", "find_time", "row_count", "step_count", "comparison", "bundle")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    FIND_TIME_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    model: str
    method: str
    find_time: _timestamp_pb2.Timestamp
    row_count: int
    step_count: int
    comparison: Comparison
    bundle: str
    def __init__(self, model: _Optional[str] = ..., method: _Optional[str] = ..., find_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., row_count: _Optional[int] = ..., step_count: _Optional[int] = ..., comparison: _Optional[_Union[Comparison, _Mapping]] = ..., bundle: _Optional[str] = ...) -> None: ...

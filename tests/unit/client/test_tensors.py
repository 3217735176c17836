"""Tensor messages: what comes back is what was sent, and everything malformed is refused with its part and a text."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lstmserve import tensors
from lstmserve.tensors import TensorError
from lstmserve.v1 import lstm_pb2
from lstmserve.v1.lstm_pb2 import Tensor

FLOAT16, BFLOAT16 = lstm_pb2.DATA_TYPE_FLOAT16, lstm_pb2.DATA_TYPE_BFLOAT16
FLOAT32, FLOAT64 = lstm_pb2.DATA_TYPE_FLOAT32, lstm_pb2.DATA_TYPE_FLOAT64
INT32, INT64 = lstm_pb2.DATA_TYPE_INT32, lstm_pb2.DATA_TYPE_INT64

arrays = st.sampled_from(["<f2", "<f4", "<f8", "<i4", "<i8", ">f4", ">i8"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)


@given(arrays)
def test_data_comes_back_as_it_was_sent(array):
    """An array of any type, shape and byte order comes back from bytes with the same elements and type."""
    got = tensors.decode(tensors.encode(array))

    assert array.shape == got.shape
    assert array.dtype.newbyteorder("<") == got.dtype
    assert array.astype(array.dtype.newbyteorder("<")).tobytes() == got.tobytes()


@given(hnp.arrays(np.float32, hnp.array_shapes(min_side=1), elements=st.floats(width=32, allow_nan=False)))
def test_values_of_float32_come_back_to_the_last_bit(array):
    """Plain numbers hold every float32 exactly."""
    assert array.tobytes() == tensors.decode(tensors.encode(array, as_values=True)).tobytes()


def test_data_is_little_endian_and_row_major():
    """The layout of the bytes is the one that the contract names."""
    expected = bytes.fromhex("0000803f 00000040 00004040 00008040".replace(" ", ""))
    fortran = np.asfortranarray([[1.0, 2.0], [3.0, 4.0]], dtype=">f4")

    assert tensors.encode(fortran).data == expected


def test_data_is_decoded_without_a_copy_and_read_only():
    """The array is a view of the message's bytes, and cannot be written."""
    got = tensors.decode(Tensor(dtype=FLOAT32, shape=[2], data=bytes(8)))

    assert not got.flags.owndata
    assert not got.flags.writeable


def test_bfloat16_widens_to_float32():
    """The bytes of a bfloat16 are the upper half of a float32."""
    got = tensors.decode(Tensor(dtype=BFLOAT16, shape=[2], data=bytes.fromhex("803f 40c0".replace(" ", ""))))

    np.testing.assert_array_equal(np.array([1.0, -3.0], np.float32), got)


@pytest.mark.parametrize(("value", "expected"), [(1.00390625, 1.0), (1.01171875, 1.015625), (1.005, 1.0078125)])
def test_values_round_to_bfloat16_with_ties_to_even(value, expected):
    """A number between two bfloat16 becomes the nearer one, or the even one of two equally near."""
    got = tensors.decode(Tensor(dtype=BFLOAT16, shape=[1], values=[value]))

    assert np.float32(expected) == got[0]


def test_values_without_a_type_take_the_default():
    """Numbers without a type are of the type that the reader names, float64 if none."""
    message = Tensor(shape=[1], values=[0.1])

    assert np.float32(0.1) == tensors.decode(message, default=np.float32)[0]
    assert np.float64(0.1) == tensors.decode(message)[0]


@pytest.mark.parametrize(
    ("message", "part", "text"),
    [
        (Tensor(shape=[2]), "", "neither data nor values is set; expected 2 elements for the shape (2)"),
        (
            Tensor(dtype=FLOAT32, shape=[1], data=bytes(4), values=[1]),
            "",
            "both data and values are set; expected one of them",
        ),
        (
            Tensor(shape=[1], data=bytes(4)),
            "dtype",
            "got DATA_TYPE_UNSPECIFIED with data, expected one of DATA_TYPE_FLOAT16, DATA_TYPE_BFLOAT16, DATA_TYPE_FLOAT32, "
            "DATA_TYPE_FLOAT64, DATA_TYPE_INT32, DATA_TYPE_INT64",
        ),
        (
            Tensor(dtype=99, shape=[1], data=bytes(4)),
            "dtype",
            "got number 99 with data, expected one of DATA_TYPE_FLOAT16, DATA_TYPE_BFLOAT16, DATA_TYPE_FLOAT32, DATA_TYPE_FLOAT64, "
            "DATA_TYPE_INT32, DATA_TYPE_INT64",
        ),
        (Tensor(dtype=99, shape=[1], values=[1]), "dtype", "got number 99, expected one of the names of DataType"),
        (
            Tensor(dtype=FLOAT32, shape=[2, 3], data=bytes(23)),
            "data",
            "got 23 bytes, expected 24: 6 elements for the shape (2, 3), 4 bytes each",
        ),
        (
            Tensor(dtype=FLOAT64, shape=[2**32, 2**32], data=bytes(8)),
            "shape",
            "(4294967296, 4294967296) is larger than any message",
        ),
        (Tensor(shape=[2**62, 0, 2]), "shape", "(4611686018427387904, 0, 2) is larger than any message"),
        (Tensor(dtype=FLOAT32, shape=[], data=bytes(8)), "data", "got 8 bytes, expected 4: 1 elements for the shape (), 4 bytes each"),
        (Tensor(dtype=FLOAT32, shape=[0, 3], data=bytes(4)), "data", "got 4 bytes, expected 0: 0 elements for the shape (0, 3), 4 bytes each"),
        (Tensor(dtype=FLOAT32, shape=[-1, 3], data=bytes(4)), "shape", "(-1, 3) has a negative dimension"),
        (Tensor(dtype=FLOAT32, shape=[1] * 9, data=bytes(4)), "shape", "got 9 dimensions, expected at most 8"),
        (Tensor(dtype=FLOAT32, shape=[3], values=[1, 2]), "values", "got 2, expected 3 for the shape (3)"),
        (Tensor(dtype=INT32, shape=[2], values=[1, 1.5]), "values", "1.5 at (1) does not fit int32"),
        (Tensor(dtype=INT64, shape=[1], values=[float("nan")]), "values", "nan at (0) does not fit int64"),
        (Tensor(dtype=FLOAT16, shape=[1, 1], values=[7e4]), "values", "70000.0 at (0, 0) does not fit float16"),
    ],
)  # fmt: skip
def test_refusal(message, part, text):
    """What is malformed is refused, naming the part, what came and what was expected."""
    with pytest.raises(TensorError) as refused:
        tensors.decode(message)

    assert (part, text) == (refused.value.part, refused.value.text)


GARBAGE = st.builds(
    Tensor,
    dtype=st.integers(-1, 8),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=9),
    data=st.binary(max_size=64),
    values=st.lists(st.floats(), max_size=8),
)  # fmt: skip
NEARLY_RIGHT = st.builds(
    Tensor,
    dtype=st.sampled_from([FLOAT16, FLOAT32, FLOAT64, INT32, INT64]),
    shape=st.lists(st.integers(0, 2), max_size=3),
    data=st.sampled_from([b"", bytes(4), bytes(8), bytes(16), bytes(32)]),
)  # fmt: skip
RIGHT = st.lists(st.integers(0, 2), max_size=3).map(
    lambda shape: Tensor(dtype=FLOAT32, shape=shape, data=bytes(4 * math.prod(shape)))
)


def test_nothing_but_a_refusal_comes_of_garbage():
    """Any message at all is either an array of the shape it names, or refused; both are seen often."""
    decoded, refused = [], []

    @given(GARBAGE | NEARLY_RIGHT | RIGHT)
    @settings(max_examples=200)
    def check(message):
        try:
            got = tensors.decode(message)
        except TensorError as error:
            refused.append(error)
            return
        decoded.append(got)
        assert tuple(message.shape) == got.shape

    check()
    assert min(len(decoded), len(refused)) >= 10


def test_an_array_without_a_place_in_a_tensor_is_named():
    """An array of a type that has no DataType is refused by name."""
    with pytest.raises(TypeError, match=r"^an array of complex64 cannot be sent; expected one of float16, bfloat16,"):
        tensors.encode(np.zeros(1, np.complex64))

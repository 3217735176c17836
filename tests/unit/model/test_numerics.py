"""The products of both modes: that a row is multiplied the same in any company, however that is done (promise P2)."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lstmserve_server.model.numerics import Numerics, all_finite, matmul_of
from tests.support.builders import numbers

EXACT = matmul_of(Numerics.EXACT)
FAST = matmul_of(Numerics.FAST)


def multiplied(matmul, x, w):
    """Returns a product as a new array."""
    out = np.empty((*x.shape[:-1], w.shape[1]), x.dtype)
    matmul(x, w, out)
    return out


@given(
    st.integers(1, 300),
    st.one_of(st.integers(1, 40), st.integers(1, 300).map(lambda units: 4 * units)),
    st.integers(2, 9),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_a_row_alone_has_the_bytes_that_it_has_among_others(n, m, rows, dtype, turned):
    """One row, several, and several of several steps are multiplied to the same bytes, zeros of both signs among them."""
    x = numbers(rows, n, dtype=dtype)
    x[:, ::3] *= dtype(0)
    w = numbers(m, n, seed=1, dtype=dtype).T if turned else numbers(n, m, seed=1, dtype=dtype)

    together = multiplied(EXACT, x, w)

    for row in range(rows):
        assert together[row].tobytes() == multiplied(EXACT, x[row : row + 1], w).tobytes()
        assert together[row].tobytes() == multiplied(EXACT, x[row], w).tobytes()
    assert together.tobytes() == multiplied(EXACT, x[:, None], w).tobytes()
    np.testing.assert_allclose(together, multiplied(FAST, x[:, None], w)[:, 0], rtol=0, atol=1e-3)


def test_a_prepared_product_takes_what_x_holds_then():
    """A product that was prepared once is computed again with each call."""
    for matmul in (EXACT, FAST):
        for rows in (1, 3):
            x, w, out = numbers(rows, 5), numbers(5, 8, seed=1), np.empty((rows, 8), np.float32)
            multiply = matmul.bind(x, w, out)
            x += 1
            multiply()
            assert multiplied(matmul, x, w).tobytes() == out.tobytes()


def test_all_finite_tells_infinity_and_nan_from_large_numbers():
    """Numbers whose squares overflow are finite, and what is not finite is found anywhere."""
    large = np.full((2, 3, 4), 3e38, np.float32)

    assert all_finite(large)
    assert all_finite(large[:, ::2])
    for wrong in (np.inf, -np.inf, np.nan):
        for place in np.ndindex(large.shape):
            array = np.zeros_like(large)
            array[place] = wrong
            assert not all_finite(array)

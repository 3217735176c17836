"""docs/models.md says what is true of the layers."""

from __future__ import annotations

import re

import pytest

from lstmserve_server.activations import Era, names
from lstmserve_server.layers.base import StatelessLayer
from lstmserve_server.layers.kinds import STATELESS
from lstmserve_server.loading.layer_plans import PLANS
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text()
STEP = dict(re.findall(r"^\| (\w+) \| (yes|no) \|", PAGE, re.MULTILINE))


def test_every_kind_of_layer_is_on_the_page():
    """The page lists the kinds of layers that the loader knows, and no other."""
    assert set(PLANS) == set(STEP)


@pytest.mark.parametrize("kind", STATELESS)
def test_the_page_knows_which_layers_can_be_stepped(kind):
    """A layer with an obstacle has "no" on the page, and one without has "yes"."""
    layer = STATELESS[kind]
    assert isinstance(layer, type)
    assert issubclass(layer, StatelessLayer)

    assert STEP[kind] == ("no" if layer.obstacle else "yes")


@pytest.mark.slow
def test_two_activations_are_left_out():
    """Of the activations of Keras 3 all but two are served."""
    keras = pytest.importorskip("keras.src.activations", reason="the extra [shadow] has no TensorFlow for this Python")

    assert {"glu", "threshold"} == set(keras.ALL_OBJECTS_DICT) - set(names(Era.KERAS_3))

"""Answers of the process that parses files, if a file has taken it over (promise P7)."""

from __future__ import annotations

import json
import os
import random

import pytest

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import reader
from lstmserve_server.loading.store import transfer
from lstmserve_server.loading.store.arrays import SharedStore
from tests.hostile.config_mutants import mutant
from tests.hostile.formats import refusal
from tests.support.builders import (
    input_config,
    lstm_config,
    lstm_weights,
    sequential,
    weights_file,
    write_zip,
)
from tests.support.paths import SUNSPOTS


@pytest.mark.parametrize("seed", range(4))
def test_mutants_of_what_comes_back_are_errors_of_few_kinds(tmp_path, seed):
    """A description that someone has altered on its way raises one of the errors that the server takes for a refusal."""
    chance = random.Random(seed)
    file = os.memfd_create("test")
    form = json.loads(json.dumps(transfer.dump(reader.load(SUNSPOTS), SharedStore(file), file)))
    expected = (UnsupportedModelError, ValueError, TypeError, KeyError, AttributeError, OverflowError)
    refused = 0
    for _ in range(300):
        try:
            transfer.load(mutant({"config": form}, chance)["config"], file)
        except expected:
            refused += 1
    os.close(file)

    assert refused > 30


def test_weights_that_no_layer_asks_for_are_refused(tmp_path):
    """A file with the weights of one layer more than the model has does not belong to it, and is refused."""
    weights = {f"layers/{name}/cell/vars": lstm_weights(3, 3) for name in ("lstm", "lstm_1")}
    path = write_zip(tmp_path / "m.keras", sequential(input_config(), lstm_config(3)), weights_file(weights))

    assert "the file holds weights in layers/lstm_1, and the model has no layer for them" in refusal(path)

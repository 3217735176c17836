"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.support import builders, live
from tests.support.paths import SUNSPOTS

settings.register_profile("lstmserve", deadline=None, print_blob=True)
settings.load_profile("lstmserve")


@pytest.fixture(scope="session")
def two_models(tmp_path_factory):
    """Returns a server process with the bundled model and a model that goes backwards."""
    late = builders.sequential(builders.input_config(), builders.lstm_config(go_backwards=True))
    path = builders.write_zip(tmp_path_factory.mktemp("models") / "late.keras", late)
    with live.serving(f"sunspots={SUNSPOTS}", path, *live.QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def sunspots():
    """Returns a server process with the bundled model."""
    with live.serving(f"sunspots={SUNSPOTS}", *live.QUICK) as server:
        yield server

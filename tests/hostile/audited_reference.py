"""Has the libraries of Keras load files as the reference does, watched by an audit hook: `python -m tests.hostile.audited_reference`.

Reads lines of JSON, {"file": path, "raw": whether Keras is given the file as it is, without our care}, and answers each with
{"kind": of the witness, "text": why, "events": what a payload did}.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import sys
import tempfile

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}

import keras
import tf_keras

from lstmserve.v1 import shadow_pb2
from lstmserve_server.loading import reader
from lstmserve_server.loading.store import memory_files
from lstmserve_server.shadow.reference import keras_loader
from tests.hostile import payloads


class Evil:
    """A registered class: to make one is a payload's deed."""

    def __init__(self, **_):
        os.environ[payloads.MARKER] = "1"

    @classmethod
    def from_config(cls, _):
        """Returns one."""
        return cls()

    def get_config(self):
        """Returns nothing."""
        return {}


keras.saving.register_keras_serializable(package="payloads")(Evil)
tf_keras.saving.register_keras_serializable(package="payloads")(Evil)

events: list[str] = []
_CODE = base64.b64decode(payloads.CODE)


def _hook(event, arguments):
    if event == "import" and arguments[0] == payloads.MODULE:
        events.append("the module was imported")
    elif event == "marshal.loads" and arguments[0] == _CODE:
        events.append("the code was unmarshalled")


def answer(request, scratch):
    """Loads a file, and returns what happened."""
    events.clear()
    kind, text = 0, ""
    try:
        if request["library"] == "none":
            importlib.import_module(payloads.MODULE)
        elif request["raw"]:
            library = keras if request["library"] == "keras" else tf_keras
            library.models.load_model(request["file"], compile=False, safe_mode=False)
        else:
            copy = memory_files.copy_of(request["file"], 1 << 30)
            witness = keras_loader.witness_of(
                reader.load(request["file"]), keras_loader.ModelFile(copy.descriptor, whole=True, scratch=scratch)
            )
            kind, text = witness.kind, witness.text
    except Exception as error:  # noqa: BLE001 - only what the payload did is of interest
        text = f"{type(error).__name__}: {error}"
    if payloads.has_run():
        events.append("the payload has run")
    return {"kind": shadow_pb2.ReferenceModelKind.Name(kind), "text": text[:300], "events": list(events)}


def main():
    """Answers every line."""
    sys.addaudithook(_hook)
    with tempfile.TemporaryDirectory() as scratch:
        for line in sys.stdin:
            print("answer:", json.dumps(answer(json.loads(line), scratch)), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()

"""KServe's Python server with a model of its user's: V2 inference protocol over gRPC, the textbook's NumPy behind.

python -m bench.servers.kserve_server PORT UNITS
"""

from __future__ import annotations

import sys
from typing import Any

import kserve
from kserve import InferOutput, InferRequest, InferResponse, Model

from bench.ports import free_port
from bench.servers.textbook import stepper


class Lstm(Model):  # type: ignore[misc]
    """The model."""

    def __init__(self) -> None:
        super().__init__("lstm")
        self._step: Any = stepper("textbook", int(sys.argv[2]))
        self.ready = True

    async def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        """Advances a row by a step."""
        given = {item.name: item.as_numpy() for item in payload.inputs}
        made = self._step(given["x"], given["h"], given["c"])
        outputs = []
        for name, array in zip("yhc", made, strict=True):
            output = InferOutput(name=name, shape=list(array.shape), datatype="FP32")
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return InferResponse(payload.id or "", "lstm", outputs, use_binary_outputs=True)


if __name__ == "__main__":
    server = kserve.ModelServer(http_port=free_port(), grpc_port=int(sys.argv[1]), enable_docs_url=False)
    server.start([Lstm()])

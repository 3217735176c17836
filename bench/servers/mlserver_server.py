"""Seldon MLServer with a runtime of its user's: V2 inference protocol over gRPC, the textbook's NumPy behind.

python -m bench.servers.mlserver_server PORT UNITS
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.servers.textbook import stepper


class Lstm(MLModel):
    """The model."""

    async def load(self) -> bool:
        """Makes it ready."""
        self._step: Any = stepper("textbook", int(sys.argv[2]))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Advances a row by a step."""
        given = {item.name: NumpyCodec.decode_input(item) for item in payload.inputs}
        made = self._step(given["x"], given["h"], given["c"])
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip("yhc", made, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def serve(port: int) -> None:
    """Serves until it is killed: in this process, as its users are told to do where latency counts."""
    settings = Settings(
        host="127.0.0.1", http_port=0, grpc_port=port, metrics_endpoint=None, parallel_workers=0, debug=False
    )
    await MLServer(settings).start([ModelSettings(name="lstm", implementation=Lstm)])


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))

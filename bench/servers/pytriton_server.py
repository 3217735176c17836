"""NVIDIA's Triton through pytriton: V2 inference protocol over gRPC, the textbook's NumPy behind, in a process alongside Triton.

python -m bench.servers.pytriton_server PORT UNITS
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from bench.ports import free_port
from bench.servers.textbook import stepper
from bench.subject import FEATURES


def main() -> None:
    """Serves until it is killed."""
    port, units = map(int, sys.argv[1:])
    step = stepper("textbook", units)

    @batch
    def infer(x: Any, h: Any, c: Any) -> dict[str, Any]:
        return dict(zip("yhc", step(x, h, c), strict=True))

    sizes = {"x": FEATURES, "h": units, "c": units, "y": 1}
    tensors = {name: Tensor(name=name, dtype=np.float32, shape=(size,)) for name, size in sizes.items()}
    config = TritonConfig(grpc_port=port, http_port=free_port(), allow_metrics=False, grpc_address="127.0.0.1")
    with Triton(config=config) as triton:
        triton.bind(
            model_name="lstm",
            infer_func=infer,
            inputs=[tensors[name] for name in "xhc"],
            outputs=[tensors[name] for name in "yhc"],
            config=ModelConfig(max_batch_size=64),
        )
        triton.serve()


if __name__ == "__main__":
    main()

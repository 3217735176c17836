"""Benchmark of an engine with one LSTM layer, compared with the library alone: python -m bench.engine_costs [UNITS ...].

All contenders take turns in short rounds, on one thread each; a figure is the least of the rounds, as neighbors on the machine
only ever add to it. `torch` is among them where it is installed.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import time

import numpy as np
import onnxruntime

from lstmserve_server.model.engines import onnx_graph
from lstmserve_server.model.lstm import LSTMSpec, LSTMState, LSTMWeights
from lstmserve_server.model.numerics import Engine, Numerics
from tests.support.builders import activation, cell_of, numbers

FEATURES = 16
BATCHES = (1, 8, 64)
TIMES = (1, 100)
ROUNDS = 60
SECONDS = 0.02  # at least, of a round of one contender
LONGEST = 8  # seconds, of all rounds of a row of the table, unless three take longer


def weights_of(units):
    """Returns the weights of a layer."""
    return LSTMWeights(
        numbers(FEATURES, 4 * units, seed=1, scale=0.3),
        numbers(units, 4 * units, seed=2, scale=0.9 / units**0.5),
        numbers(4 * units, seed=3, scale=0.4),
    )


def bare(weights):
    """Returns ONNX Runtime alone, on what it likes best: time first, no copies, nothing checked."""
    functions = [onnx_graph.Function(name) for name in ("Sigmoid", "Tanh", "Tanh")]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_graph.lstm(weights, functions), options)

    def made(x, state):
        x, h, c = np.ascontiguousarray(x.swapaxes(0, 1)), state.h[None], state.c[None]
        return lambda: session.run(None, {"x": x, "h": h, "c": c})

    return made


def torch_lstm(weights):
    """Returns PyTorch's LSTM."""
    import torch  # noqa: PLC0415 - where it is installed

    torch.set_num_threads(1)
    features, units = weights.kernel.shape[0], weights.recurrent_kernel.shape[0]
    layer = torch.nn.LSTM(features, units)
    parameters = (weights.kernel.T, weights.recurrent_kernel.T, weights.bias, np.zeros_like(weights.bias))
    with torch.inference_mode():
        for parameter, value in zip(layer.parameters(), parameters, strict=True):
            parameter.copy_(torch.from_numpy(value.copy()))

    def made(x, state):
        x = torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1)))
        before = (torch.from_numpy(state.h[None]), torch.from_numpy(state.c[None]))

        def run():
            with torch.inference_mode():
                return layer(x, before)

        return run

    return made


def ours(cell):
    """Returns a layer as the server calls it."""
    return lambda x, state: (
        functools.partial(cell.step, np.ascontiguousarray(x[:, 0]), state)
        if x.shape[1] == 1
        else functools.partial(cell.forward, x, state)
    )


def contenders(units):
    """Returns every contender by name."""
    weights = weights_of(units)
    spec = LSTMSpec(units, activation("tanh"), activation("sigmoid"))
    found = {
        "numpy exact": ours(cell_of(Engine.NUMPY, spec, weights)),
        "numpy fast": ours(cell_of(Engine.NUMPY, spec, weights, Numerics.FAST)),
        "engine": ours(cell_of(Engine.ONNXRUNTIME, spec, weights)),
        "bare ORT": bare(weights),
    }
    if importlib.util.find_spec("torch") is not None:
        found["torch"] = torch_lstm(weights)
    return found


def seconds_of(run, calls):
    """Returns how long a call takes, of several."""
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - began) / calls


def measure(runs):
    """Returns the least seconds of a call of each, in turns."""
    least = {name: seconds_of(run, 1) for name, run in runs.items()}
    calls = {name: max(1, int(SECONDS / seconds)) for name, seconds in least.items()}
    rounds = max(3, min(ROUNDS, int(LONGEST / sum(calls[name] * seconds for name, seconds in least.items()))))
    for _ in range(rounds):
        for name, run in runs.items():
            least[name] = min(least[name], seconds_of(run, calls[name]))
    return least


def main():
    """Prints a table of microseconds, and of the engine against NumPy and ONNX Runtime."""
    columns = None
    for units in map(int, sys.argv[1:] or ("32", "128", "512", "1024")):
        made = contenders(units)
        if columns is None:
            columns = list(made)
            print("| units | batch | steps | " + " | ".join(columns) + " | numpy exact / engine | engine / bare ORT |")
            print("|---" * (len(columns) + 5) + "|")
        for batch in BATCHES:
            for steps in TIMES:
                x = numbers(batch, steps, FEATURES)
                state = LSTMState(np.tanh(numbers(batch, units, seed=4)), numbers(batch, units, seed=5))
                least = measure({name: contender(x, state) for name, contender in made.items()})
                figures = " | ".join(f"{1e6 * least[name]:,.1f}" for name in columns)
                gain, cost = least["numpy exact"] / least["engine"], least["engine"] / least["bare ORT"]
                print(f"| {units} | {batch} | {steps} | {figures} | {gain:.2f} | {cost:.2f} |", flush=True)


if __name__ == "__main__":
    main()

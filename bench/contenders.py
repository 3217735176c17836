"""The servers that are measured: how each is started, what it is asked, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import wire
from bench.subject import Inputs
from lstmserve import tensors
from lstmserve.v1 import lstm_pb2

Array = NDArray[Any]
Decode = Callable[[bytes], dict[str, Array]]


@dataclass(frozen=True, slots=True)
class Form:
    """Protocol of a contender: the method, the request, and its answer as y, h and c, each (1, n)."""

    method: str
    encode: Callable[[Inputs], bytes]
    decode: Decode


@dataclass(frozen=True, slots=True)
class Contender:
    """A server."""

    name: str
    environment: str
    arguments: tuple[str, ...]
    """Behind the interpreter; {port}, {units}, {model} and {answer} stand for what they say."""
    form: Form
    computes: bool = True
    """Whether its answer is one; an echo's is not."""
    variables: tuple[tuple[str, str], ...] = ()
    """Added to its process' environment."""


def _one_step(given: Inputs) -> tuple[Array, Array, Array]:
    return given.x[:, 0], given.h, given.c


def _own(given: Inputs) -> bytes:
    x, h, c = map(tensors.encode, _one_step(given))
    layer = lstm_pb2.LayerState(h=h, c=c, layer="lstm")
    request = lstm_pb2.StepRequest(x=x, state=lstm_pb2.State(layers=[layer], steps_seen=[1]))
    return bytes(request.SerializeToString())


def _own_answer(data: bytes) -> dict[str, Array]:
    response = lstm_pb2.StepResponse.FromString(data)
    layer = response.state.layers[0]
    return {"y": tensors.decode(response.output), "h": tensors.decode(layer.h), "c": tensors.decode(layer.c)}


def _floats(given: Inputs) -> bytes:
    x, h, c = (array[0].tolist() for array in _one_step(given))
    return bytes(wire.Floats(x=x, h=h, c=c).SerializeToString())


def _floats_answer(data: bytes) -> dict[str, Array]:
    response = wire.Floats.FromString(data)
    return {name: np.array(getattr(response, name), np.float32)[None] for name in "yhc"}


def _raw(given: Inputs) -> bytes:
    x, h, c = (array.tobytes() for array in _one_step(given))
    return bytes(wire.Raw(x=x, h=h, c=c).SerializeToString())


def _raw_answer(data: bytes) -> dict[str, Array]:
    response = wire.Raw.FromString(data)
    return {name: np.frombuffer(getattr(response, name), np.float32)[None] for name in "yhc"}


def _v2(given: Inputs) -> bytes:
    request = wire.ModelInferRequest(model_name="lstm")
    for name, array in zip("xhc", _one_step(given), strict=True):
        request.inputs.add(name=name, datatype="FP32", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return bytes(request.SerializeToString())


def _v2_answer(data: bytes) -> dict[str, Array]:
    response = wire.ModelInferResponse.FromString(data)
    contents = zip(response.outputs, response.raw_output_contents, strict=True)
    return {output.name: np.frombuffer(raw, np.float32).reshape(output.shape) for output, raw in contents}


OWN = Form("/lstmserve.v1.LstmService/Step", _own, _own_answer)
FLOATS = Form(wire.METHOD, _floats, _floats_answer)
RAW = Form(wire.METHOD, _raw, _raw_answer)
V2 = Form(wire.V2_METHOD, _v2, _v2_answer)


def serve(*arguments: str) -> tuple[str, ...]:
    """Returns what starts the service with models and flags."""
    listen = ("--listen", "127.0.0.1:{port}", "--log-format", "json", "--lame-duck-seconds", "0")
    return ("-m", "lstmserve_server", "serve", *arguments, *listen)


def ours(name: str, *flags: str) -> Contender:
    """Returns the service with one model and some flags."""
    return Contender(name, "ours", serve("{model}", *flags), OWN)


def _echo(flavor: str, name: str = "bare echo, {}") -> Contender:
    arguments = ("-m", "bench.servers.echo", "{port}", flavor, "{answer}")
    return Contender(name.format(flavor), "grpcio", arguments, OWN, computes=False)


def _textbook(name: str, environment: str, engine: str, form: str) -> Contender:
    arguments = ("-m", "bench.servers.textbook", "{port}", engine, "{units}", form)
    return Contender(name, environment, arguments, FLOATS if form == "floats" else RAW)


def _framework(name: str, environment: str) -> Contender:
    arguments = ("-m", f"bench.servers.{environment}_server", "{port}", "{units}")
    return Contender(name, environment, arguments, RAW if environment == "ray" else V2)


OURS = ours("ours")
ECHOES = tuple(map(_echo, ("sync", "asyncio", "uvloop")))

CONTENDERS = (
    *ECHOES,
    _echo("busy", "echo that is busy for 150 us, asyncio"),
    OURS,
    ours("ours, 2 workers", "--workers", "2"),
    _textbook("textbook (threads, repeated float)", "grpcio", "textbook", "floats"),
    _textbook("ONNX Runtime after grpcio", "onnx", "onnx", "raw"),
    _textbook("Keras after grpcio, called", "keras", "keras:call", "raw"),
    _textbook("Keras after grpcio, tf.function", "keras", "keras:function", "raw"),
    _framework("Seldon MLServer", "mlserver"),
    _framework("KServe's Python server", "kserve"),
    _framework("Ray Serve", "ray"),
    _framework("Triton (pytriton)", "pytriton"),
)

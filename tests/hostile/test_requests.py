"""Requests over the wire: the status, details and text that a stranger gets, and that a good caller is never the worse."""

from __future__ import annotations

import concurrent.futures
import socket

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from lstmserve import Client, ResourceExhausted, calls, tensors
from lstmserve.v1 import lstm_pb2
from lstmserve.v1.lstm_pb2 import StepRequest, Tensor
from tests.support.builders import lstm_config, lstm_weights, sequential, weights_file, write_zip
from tests.support.live import QUICK, serving
from tests.support.paths import SUNSPOTS

METHODS = ("Step", "Forward", "GetModel", "ListModels")
EXPECTED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def send(channel, method, data, timeout=20):
    """Sends bytes to a method, and returns the error or None."""
    try:
        channel.unary_unary(f"/lstmserve.v1.LstmService/{method}")(data, timeout=timeout)
    except grpc.RpcError as error:
        return error
    return None


def details_of(error):
    """Returns the google.rpc.Status that an error carries, and its details by class name."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    details = {}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.type_url.rpartition(".")[2])
        packed.Unpack(message := kind())
        details[kind.__name__] = message
    return status, details


@pytest.fixture
def channel(two_models):
    """Returns a channel to the server, without retries."""
    with grpc.insecure_channel(
        two_models.address, [("grpc.enable_retries", 0), ("grpc.max_send_message_length", -1)]
    ) as channel:
        yield channel


def test_invalid_argument_names_the_field(channel):
    """INVALID_ARGUMENT carries BadRequest with the field, and ErrorInfo with a reason."""
    error = send(channel, "Step", StepRequest(model="sunspots", x=Tensor(shape=[1, -1])).SerializeToString())
    status, details = details_of(error)

    assert (
        error.code(),
        error.details(),
    ) == (grpc.StatusCode.INVALID_ARGUMENT, "x.shape: (1, -1) has a negative dimension")
    assert (3, error.details()) == (status.code, status.message)
    violation = details["BadRequest"].field_violations[0]
    assert (violation.field, violation.description) == ("x.shape", "(1, -1) has a negative dimension")
    assert (details["ErrorInfo"].reason, details["ErrorInfo"].domain) == ("INVALID_REQUEST", "lstmserve")


def test_failed_precondition_names_the_field(channel):
    """FAILED_PRECONDITION carries PreconditionFailure with the field."""
    request = StepRequest(model="sunspots", x=tensors.encode(np.zeros((1, 2), np.float32)))
    error = send(channel, "Step", request.SerializeToString())
    violation = details_of(error)[1]["PreconditionFailure"].violations[0]

    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert (
        violation.type,
        violation.subject,
        violation.description,
    ) == ("WRONG_FOR_MODEL", "x.shape", "got 2 features; the model has 1")


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message(channel, method):
    """Bytes that cannot be decoded are INVALID_ARGUMENT, in words, without a name of ours."""
    error = send(channel, method, b"\xff\xff\xff")

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == f"got 3 bytes that are not a valid lstmserve.v1.{method}Request"


def test_a_method_that_is_not_there(channel):
    """An unknown method is UNIMPLEMENTED."""
    assert send(channel, "Leap", b"").code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_message_beyond_the_limit(channel):
    """A message larger than the limit is RESOURCE_EXHAUSTED, and not read."""
    assert send(channel, "Step", bytes(17 << 20)).code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def garbage(random):
    """Returns a method and a malformed request for it: noise, a damaged good request, or one of odd parts."""
    method = METHODS[random.integers(2)]
    kind = random.integers(3)
    if kind == 0:
        return method, random.bytes(random.integers(1, 200))
    shape = random.choice([-1, 0, 1, 2, 3, 2**40, 2**62], random.integers(0, 5))
    tensor = Tensor(dtype=int(random.integers(-2, 9)), shape=shape.tolist(), data=random.bytes(random.integers(0, 40)))
    if random.integers(2):
        tensor.values.extend(random.normal(size=random.integers(0, 4)))
    state = lstm_pb2.State(
        model_digest=random.choice(["", "0" * 64, "\x00"]), steps_seen=random.integers(-3, 3, 2).tolist()
    )
    for _ in range(random.integers(0, 4)):
        state.layers.add(h=tensor, c=tensor, layer=random.choice(["", "slow", "fast", "?"]))
    name = random.choice(["sunspots", "sunspots", "late", "", "../x", "s\u00fcn"])
    request = getattr(lstm_pb2, f"{method}Request")(model=name, x=tensor, state=state if random.integers(2) else None)
    if method == "Forward":
        request.lengths.extend(random.integers(-1, 4, random.integers(0, 3)).tolist())
    data = bytearray(request.SerializeToString())
    if kind == 2 and data:
        for place in random.integers(0, len(data), 3):
            data[place] = random.integers(256)
    return method, bytes(data)


@pytest.mark.slow
def test_ten_thousand_malformed_requests(two_models, channel):
    """10,000 malformed requests each get one of the four refusals or an answer, and a good one is then answered."""
    with Client(two_models.address, model="sunspots") as client:
        before = client.step([0.25]).output.tobytes()

        def batch(seed):
            random = np.random.default_rng(seed)
            codes = []
            for _ in range(500):
                error = send(channel, *garbage(random))
                if error is not None:
                    codes.append(error.code())
            return codes

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            codes = [code for codes in pool.map(batch, range(20)) for code in codes]

        assert set(codes) <= EXPECTED
        assert len(codes) > 9000
        assert before == client.step([0.25]).output.tobytes()


def test_noise_on_the_port_costs_nobody_an_answer(two_models):
    """Connections that speak no HTTP/2, and that close in the middle, leave a good caller alone."""
    host, _, port = two_models.address.rpartition(":")
    with Client(two_models.address, model="sunspots") as client:
        for noise in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
            bytes(range(256)) * 16,
        ):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(noise)
            assert client.step([0.25]).output.shape == (1,)


@pytest.fixture
def narrow(tmp_path):
    """Returns a server that takes two calls at a time, with a model whose sequences take a while."""
    weights = weights_file({"layers/lstm/cell/vars": lstm_weights(3, 256)})
    path = write_zip(tmp_path / "big.keras", sequential(lstm_config(256, batch_input_shape=[None, None, 3])), weights)
    with serving(path, "--max-concurrent-calls", "2", "--compute-threads", "1", *QUICK) as server:
        yield server


def test_a_full_server_says_so_at_once(narrow):
    """Beyond the limit of concurrent calls the answer is RESOURCE_EXHAUSTED with a delay, and the running ones finish."""
    long = calls.forward(np.zeros((4, 2000, 3), np.float32), None, "", None, all_outputs=False)
    with grpc.insecure_channel(narrow.address, [("grpc.enable_retries", 0)]) as channel:
        method = channel.unary_unary(long.method, lambda request: request.SerializeToString())
        running = [method.future(long.request, timeout=100) for _ in range(6)]
        codes = [call.code() for call in running]
        refused = running[codes.index(grpc.StatusCode.RESOURCE_EXHAUSTED)]
        details = details_of(refused)[1]

    assert codes.count(grpc.StatusCode.OK) == 2
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 4
    assert refused.details() == "2 calls are running, which is the maximum (--max-concurrent-calls). Try again later"
    assert details["RetryInfo"].retry_delay.nanos == 100_000_000
    assert (details["ErrorInfo"].reason, dict(refused.trailing_metadata())["grpc-retry-pushback-ms"]) == ("BUSY", "100")


def test_a_cancelled_call_frees_its_place(narrow):
    """Calls that were cancelled or ran out of time stop computing, and others take their places."""
    long = calls.forward(np.zeros((4, 60000, 3), np.float32), None, "", None, all_outputs=False)
    with Client(narrow.address, timeout=60) as client, grpc.insecure_channel(narrow.address) as channel:
        method = channel.unary_unary(long.method, lambda request: request.SerializeToString())
        late = method.future(long.request, timeout=0.5)
        gone = method.future(long.request, timeout=100)
        assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        gone.cancel()

        def answered():
            try:
                return client.forward(np.zeros((300, 3), np.float32)).output.shape == (256,)
            except ResourceExhausted:  # the server has not heard yet
                return False

        while not answered():
            pass


def test_the_text_of_a_fault_never_leaves_the_server(tmp_path):
    """A fault of ours is INTERNAL with a fixed text and an id, and the log has the id with the traceback."""
    (tmp_path / "sitecustomize.py").write_text(
        "import lstmserve_server.model.model as m\n"
        "def step(self, *_):\n"
        "    raise KeyError('/secret/path token=abc')\n"
        "m.RecurrentModel.step = step\n"
        "import lstmserve_server.runtime.selftest as s\n"
        "s.run = lambda *_: 'none'\n"
    )
    with serving(SUNSPOTS, *QUICK, env={"PYTHONPATH": str(tmp_path)}) as server:
        with grpc.insecure_channel(server.address) as channel:
            error = send(
                channel, "Step", StepRequest(x=tensors.encode(np.zeros((1, 1), np.float32))).SerializeToString()
            )
        entry = server.wait_for("internal_error")

    assert error.code() == grpc.StatusCode.INTERNAL
    assert error.details() == f"internal error; look for request {entry['request_id']} in the log of the server"
    assert "KeyError" in entry["exception"]
    assert "secret" not in str(error)

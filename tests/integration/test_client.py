"""The client against a real server: one call after another, in every shape, and what it raises."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

import lstmserve
from lstmserve import AsyncClient, Client, State, channels
from lstmserve.v1 import lstm_pb2
from tests.support.builders import numbers
from tests.support.live import QUICK, serving
from tests.support.paths import SUNSPOTS

SERIES = np.abs(numbers(40, 1))


@pytest.fixture
def client(two_models):
    """Returns a client for the bundled model."""
    with Client(two_models.address, model="sunspots") as client:
        yield client


def bytes_of(state):
    """Returns every byte of a state."""
    return b"".join(part.h.tobytes() + part.c.tobytes() for part in state.layers)


def test_steps_and_forward_agree_to_the_last_bit(client):
    """Forty steps, one Forward and Forward in parts give the same bytes through the wire (P1)."""
    whole, state = client.forward(SERIES, all_outputs=True)
    stepped, outputs = None, []
    for x in SERIES:
        output, stepped = client.step(x, stepped)
        outputs.append(output)
    first, middle = client.forward(SERIES[:17], all_outputs=True)
    second, parted = client.forward(SERIES[17:], middle, all_outputs=True)

    assert whole.tobytes() == np.stack(outputs).tobytes() == np.concatenate([first, second]).tobytes()
    assert bytes_of(state) == bytes_of(stepped) == bytes_of(parted)
    assert state.steps_seen.tolist() == stepped.steps_seen.tolist() == parted.steps_seen.tolist() == [40]


def test_one_sequence_needs_no_batch_axis(client):
    """X of one sequence without a batch axis gives an output without one, and a state of one row."""
    single, state = client.step([0.5])
    batch, _ = client.step([[0.5]])
    last, _ = client.forward(SERIES)
    every, _ = client.forward(SERIES[None], all_outputs=True)

    assert (single.shape, batch.shape, last.shape, every.shape, state.batch) == ((1,), (1, 1), (1,), (1, 40, 1), 1)
    assert last.tobytes() == every[0, -1].tobytes()


@pytest.mark.parametrize(("stride", "rows"), [(1, 256), (1, 4), (3, 5)])
def test_windows_are_answered_each_alone(client, stride, rows):
    """Every window of a series has the answer of a new sequence of its own, however many go in a call."""
    outputs = client.forward_windows(SERIES, 12, stride=stride, rows=rows)
    starts = range(0, len(SERIES) - 12 + 1, stride)

    assert len(starts) == len(outputs)
    for output, start in zip(outputs, starts, strict=True):
        assert client.forward(SERIES[start : start + 12]).output.tobytes() == output.tobytes()


@pytest.mark.parametrize("arguments", [(SERIES, 41), (SERIES, 0), (SERIES[:, 0], 5)])
def test_windows_that_are_not_there(client, arguments):
    """A series without a window of the length is refused before anything is sent."""
    with pytest.raises(ValueError, match=r"expected \(time, features\) with at least one window"):
        client.forward_windows(*arguments)


def test_rows_of_several_lengths(client):
    """Rows padded to a common length are answered as each alone."""
    lengths = [40, 3, 12]
    padded = np.full((3, 40, 1), np.nan, np.float32)
    for row, length in enumerate(lengths):
        padded[row, :length] = SERIES[:length]

    output, state = client.forward(padded, lengths=lengths)

    for row, length in enumerate(lengths):
        alone, alone_state = client.forward(SERIES[:length])
        assert alone.tobytes() == output[row].tobytes()
        assert bytes_of(alone_state) == bytes_of(state[row])
    assert lengths == state.steps_seen.tolist()


def test_states_of_sequences_are_stacked_and_taken_apart(client):
    """Two sequences that were fed apart continue together, and apart again, as if they had never met."""
    _, one = client.forward(SERIES[:5])
    _, other = client.forward(SERIES[:9])
    together, both = client.step([[0.1], [0.2]], State.stack([one, other]))

    for row, (x, state) in enumerate([(0.1, one), (0.2, other)]):
        alone, after = client.step([x], state)
        assert alone.tobytes() == together[row].tobytes()
        assert bytes_of(after) == bytes_of(both[row])


def test_zeros_are_a_new_sequence(client):
    """State.zeros of the model's description is what no state stands for."""
    zeros = State.zeros(client.model())

    assert client.step([0.5]).output.tobytes() == client.step([0.5], zeros).output.tobytes()


def test_a_saved_state_goes_on_elsewhere(client, tmp_path):
    """A state from a file continues in another server process, to the same bytes."""
    output, _ = client.forward(SERIES)
    client.forward(SERIES[:20]).state.save(tmp_path / "state")

    with serving(SUNSPOTS, *QUICK) as other, Client(other.address) as elsewhere:
        resumed, _ = elsewhere.forward(SERIES[20:], State.load(tmp_path / "state"))

    assert output.tobytes() == resumed.tobytes()


def test_models_are_described(client):
    """The client tells the model it is for, and all that there are."""
    assert client.model().name == "sunspots"
    assert [model.name for model in client.models()] == ["late", "sunspots"]
    assert (client.model().state_layout[0].layer, client.model().state_layout[0].units) == ("slow", 48)
    assert "go_backwards" in client.models()[0].step_unsupported_reason


@pytest.mark.parametrize(
    ("error", "code", "call"),
    [
        (lstmserve.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT, lambda client: client.step([np.nan])),
        (lstmserve.FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION, lambda client: client.step([1, 2, 3])),
        (
            lstmserve.ResourceExhausted,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            lambda client: client.step(np.zeros((2000, 1))),
        ),
        (
            lstmserve.DeadlineExceeded,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            lambda client: client.forward(np.zeros((8, 60000, 1)), timeout=0.05),
        ),
    ],
)
def test_errors_are_typed_and_carry_the_servers_text(client, error, code, call):
    """Each refusal raises its own class with the server's text."""
    with pytest.raises(error) as raised:
        call(client)

    assert code == raised.value.code
    assert str(raised.value)


def test_a_wrong_name_lists_the_right_ones(two_models):
    """An unknown model raises NotFound with the names that there are, and none among several InvalidArgument."""
    with (
        Client(two_models.address, model="nine") as client,
        pytest.raises(lstmserve.NotFound, match="'late', 'sunspots'"),
    ):
        client.step([1])
    with Client(two_models.address) as client, pytest.raises(lstmserve.InvalidArgument, match="2 models are served"):
        client.step([1])


def test_step_on_a_model_that_has_none(two_models):
    """A model that reads from the end answers Forward, and says why not Step."""
    with Client(two_models.address, model="late") as client:
        assert client.forward(numbers(6, 3)).output.shape == (4,)
        with pytest.raises(lstmserve.FailedPrecondition, match="Step is not possible: layer 'lstm' has go_backwards"):
            client.step(numbers(3))


def test_nobody_there_is_an_error_within_the_deadline():
    """An address where no one listens raises Unavailable or DeadlineExceeded, not a hang."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with (
            Client(address, timeout=5) as client,
            pytest.raises((lstmserve.Unavailable, lstmserve.DeadlineExceeded)),
        ):
            client.step([1])


class Refusing:
    """A gRPC server that answers the first calls of a method with a status and the next with an empty message."""

    def __init__(self, *codes):
        self.codes = iter(codes)
        self.calls = 0

    def service(self, details):
        """Returns the handler of any method."""
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request, context):
        """Answers one call."""
        self.calls += 1
        code = next(self.codes, None)
        if code is not None:
            context.abort(code, "not now")
        return lstm_pb2.GetModelResponse(
            model=lstm_pb2.Model(name="late answer", dtype=lstm_pb2.DATA_TYPE_FLOAT32)
        ).SerializeToString()


@pytest.fixture
def refusing():
    """Returns a function that starts such a server and gives its address."""
    servers = []

    def start(servicer):
        server = grpc.server(ThreadPoolExecutor(2), handlers=(servicer,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_calls_are_retried(refusing, code):
    """UNAVAILABLE and CANCELLED are retried, as calls are pure."""
    servicer = Refusing(code, code)
    with Client(refusing(servicer)) as client:
        assert client.model().name == "late answer"

    assert servicer.calls == 3


def test_refusals_are_not_retried(refusing):
    """A refusal that would come again is not asked for again."""
    servicer = Refusing(*[grpc.StatusCode.RESOURCE_EXHAUSTED] * 5)
    with Client(refusing(servicer)) as client, pytest.raises(lstmserve.ResourceExhausted):
        client.model()

    assert servicer.calls == 1


async def test_the_asyncio_client_is_the_same(two_models):
    """The asyncio client gives the answers of the other one, and raises the same errors."""
    with Client(two_models.address, model="sunspots") as client:
        expected, state = client.forward(SERIES, all_outputs=True)
    async with AsyncClient(two_models.address, model="sunspots") as client:
        output, after = await client.forward(SERIES, all_outputs=True)
        steps = await asyncio.gather(*(client.step(x) for x in SERIES))

        assert expected.tobytes() == output.tobytes()
        assert bytes_of(state) == bytes_of(after)
        assert expected[0].tobytes() == steps[0].output.tobytes()
        assert (await client.forward_windows(SERIES, 12, rows=8)).shape == (29, 1)
        assert ((await client.model()).name, len(await client.models())) == ("sunspots", 2)
        with pytest.raises(lstmserve.FailedPrecondition, match="got 2 features; the model has 1"):
            await client.step([1, 2])


async def test_closing_the_asyncio_client_ends_its_calls(two_models):
    """Calls under way end with Cancelled when their client is closed, and later ones too; a cancelled task stays one."""
    client = AsyncClient(two_models.address, model="sunspots")
    long = asyncio.create_task(client.forward(np.zeros((8, 60000, 1), np.float32), timeout=100))
    other = asyncio.create_task(client.forward(np.zeros((8, 60000, 1), np.float32), timeout=100))
    await client.model()
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other
    await client.close()

    with pytest.raises(lstmserve.Cancelled, match="the client was closed"):
        await long
    with pytest.raises(lstmserve.Cancelled, match="the client was closed"):
        await client.model()


def test_a_closed_client_says_so(two_models):
    """A call on a closed client raises Cancelled."""
    client = Client(two_models.address)
    client.close()

    with pytest.raises(lstmserve.Cancelled, match="the client was closed"):
        client.model()


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_above_zero(client, timeout):
    """A time-out that is none is refused before anything is sent; infinity stands for no limit."""
    with pytest.raises(ValueError, match="expected more than 0, or infinity for none"):
        client.step([1], timeout=timeout)
    assert client.step([1], timeout=float("inf")).output.shape == (1,)


def test_errors_can_be_pickled(client):
    """An error goes to another process and back with its code, text and delay."""
    with pytest.raises(lstmserve.FailedPrecondition) as raised:
        client.step([1, 2])
    copy = pickle.loads(pickle.dumps(raised.value))

    assert (raised.value.code, str(raised.value), None) == (copy.code, str(copy), copy.retry_after)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16])
def test_small_whole_numbers_are_sent(client, dtype):
    """Types that have no place in a Tensor are widened where nothing is lost."""
    assert client.step([1.0]).output.tobytes() == client.step(np.array([1], dtype)).output.tobytes()


def test_lengths_are_whole_numbers(client):
    """Lengths that are none are refused in a sentence."""
    for lengths in (2, [1.5], [[1]]):
        with pytest.raises(ValueError, match="expected an integer for each row"):
            client.forward(SERIES[None], lengths=lengths)


def test_both_clients_have_the_same_methods_and_arguments():
    """What one client can do, the other can, with the same arguments."""
    public = [name for name in vars(Client) if not name.startswith("_")] + ["__init__"]

    assert public == [name for name in vars(AsyncClient) if not name.startswith("_")] + ["__init__"]
    for name in public:
        one, other = (inspect.signature(getattr(kind, name)) for kind in (Client, AsyncClient))
        assert one.parameters == other.parameters, name


def test_one_client_in_many_threads(client):
    """A client is shared by threads; each sequence keeps its own state."""
    expected, _ = client.forward(SERIES)
    results = {}

    def run(number):
        state = None
        for x in SERIES:
            output, state = client.step(x, state)
        results[number] = output.tobytes()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {number: expected.tobytes() for number in range(8)} == results


def test_x_of_a_wrong_rank_is_refused(client):
    """An x of too few axes raises ValueError before it is sent; too many are the server's to judge, as some models have more."""
    with pytest.raises(ValueError, match=r"expected \(batch, features\), or \(features\) for one sequence"):
        client.step(0.5)
    with pytest.raises(lstmserve.InvalidArgument, match=r"x.shape: got \(1, 1, 1\), expected \(batch, features\)"):
        client.step(np.zeros((1, 1, 1)))


def test_what_the_package_offers():
    """The public names are these."""
    assert set(lstmserve.__all__) == {
        "AsyncClient", "AsyncStream", "Cancelled", "Client", "DeadlineExceeded", "FailedPrecondition", "Internal", "InvalidArgument", "InvalidResponse", "LayerState", "LstmServeError",
        "ModelMismatch", "NotFound", "NumericsChanged", "PermissionDenied", "ResourceExhausted", "Result", "State", "Stream", "Tls", "Unauthenticated", "Unavailable",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("addresses", "name"),
    [
        ("model.example:50051", "model.example:50051"),
        ("unix:/tmp/s", "unix:/tmp/s"),
        ("127.0.0.1:1,127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (["[::1]:1", "127.0.0.2:2"], "ipv6:[::1]:1,[::ffff:127.0.0.2]:2"),
        (" both.example:3 , 127.0.0.2:2", "ipv4:192.0.2.7:3,127.0.0.2:2"),
    ],
)
def test_how_grpc_is_told_of_several_addresses(monkeypatch, addresses, name):
    """One is left to gRPC; several are numbers, of IPv4 where a host has both."""
    known = socket.getaddrinfo

    def both(host, port, **options):
        """A host with an address of each kind."""
        if host != "both.example":
            return known(host, port, **options)
        return [
            (socket.AF_INET6, 1, 6, "", ("2001:db8::7", port, 0, 0)),
            (socket.AF_INET, 1, 6, "", ("192.0.2.7", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert channels.target(addresses) == name

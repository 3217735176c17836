"""Tokens: who may call, for what, and how much; what is refused; and a file of tokens that changes under load."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import tomllib

import grpc
import pytest
from click.testing import CliRunner
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lstmserve import AsyncClient, Client, PermissionDenied, ResourceExhausted, Unauthenticated
from lstmserve.v1 import lstm_pb2, lstm_pb2_grpc
from lstmserve_server.cli.commands import lstmserve as program
from lstmserve_server.core import errors
from lstmserve_server.rpc.auth import authenticators, callers, token_file
from tests.support.live import CLIENT, QUICK, run, serving
from tests.support.paths import SUNSPOTS

GUESSED = "lsk_" + "x" * 43


class File:
    """A file of tokens."""

    def __init__(self, path):
        self.path = path
        self.entries = {}

    def add(self, name, token=None, **rules):
        """Gives a caller one more token, and rules; returns the token."""
        token = token or token_file.make()
        hashes, _ = self.entries.get(name, ((), {}))
        self.entries[name] = ((*hashes, f"sha256:{token_file.digest(token).hex()}"), rules)
        return token

    def write(self):
        """Writes it as a whole, as who changes it should: under another name first."""
        lines = []
        for name, (hashes, rules) in self.entries.items():
            given = {"name": name, "tokens": list(hashes), **rules}
            lines += ["[[caller]]", *(f"{key} = {value!r}" for key, value in given.items())]
        new = self.path.with_suffix(".new")
        new.write_text("\n".join(lines))
        new.rename(self.path)
        return self.path


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Returns the tokens of some callers, by what they may."""
    file = File(tmp_path_factory.mktemp("tokens") / "tokens.toml")
    made = {
        "all": file.add("all"),
        "one model": file.add("one model", models=["left"]),
        "step": file.add("step", methods=["Step", "StreamSteps"]),
        "slow": file.add("slow", calls_per_second=0.5),
        "narrow": file.add("narrow", rows=2),
        "single": file.add("single", concurrent_calls=1),
    }
    made["all, newer"] = file.add("all")
    return made, file.write()


@pytest.fixture(scope="module")
def server(known):
    """Returns a server of two models that wants tokens."""
    with serving(f"left={SUNSPOTS}", f"right={SUNSPOTS}", "--tokens", known[1], *QUICK) as live:
        yield live


@pytest.fixture
def calling(server, known):
    """Returns what makes a client with a token."""
    with contextlib.ExitStack() as opened:

        def make(name, model="left"):
            token = known[0].get(name, name)
            return opened.enter_context(Client(server.address, model=model, token=token))

        yield make


@pytest.mark.parametrize("name", ["all", "all, newer"])
def test_each_token_of_a_caller_lets_in(calling, name):
    """Both tokens of a caller are good for calls, streams and descriptions: so one can be exchanged for the other."""
    client = calling(name)
    client.step([0.5])
    with client.stream() as stream:
        stream.step([0.5])

    assert [model.name for model in client.models()] == ["left", "right"]


def test_a_wrong_token_is_refused(calling):
    """A token that is not known ends every kind of call with UNAUTHENTICATED, and says nothing of those that are."""
    client = calling(GUESSED)
    for call in (lambda: client.step([0.5]), client.models, client.shadow_report, lambda: client.stream().step([0.5])):
        with pytest.raises(Unauthenticated, match="got an unknown token") as caught:
            call()

        assert caught.value.code == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ((), "got no token, expected the metadata authorization: Bearer TOKEN"),
        (
            (("authorization", "Basic dXNlcg=="),),
            "the metadata authorization has another scheme; expected Bearer TOKEN",
        ),
        (
            (("authorization", "Bearer "),),
            "got an unknown token, expected one of the server's token file",
        ),
        (
            (("authorization", "Bearer sha256:" + "0" * 64),),
            "got an unknown token, expected one of",
        ),
    ],
)
def test_what_is_no_token_is_refused(server, metadata, text):
    """A call without a token, with another scheme, or with the hash of a token ends with UNAUTHENTICATED and says why."""
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        lstm_pb2_grpc.LstmServiceStub(channel).ListModels(lstm_pb2.ListModelsRequest(), metadata=metadata)

    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.details().startswith(text)


def test_garbage_is_refused_for_its_caller_and_not_read(server):
    """Who has no token is told so, whatever was sent: the message is not decoded first."""
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/lstmserve.v1.LstmService/Step")(b"\xff" * 100)

    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_token_for_another_model_is_refused(calling):
    """A caller sees and uses its own models alone, and is not told whether there are others."""
    client, other, nobodys = calling("one model"), calling("one model", "right"), calling("one model", "none")
    nameless = calling("one model", "")
    client.step([0.5])
    nameless.step([0.5])

    assert [model.name for model in client.models()] == ["left"]
    for call in (
        lambda: other.step([0.5]),
        lambda: other.forward([[0.5]]),
        lambda: other.stream().step([0.5]),
        other.model,
        other.shadow_report,
    ):
        with pytest.raises(PermissionDenied, match="'one model' may not use 'right'; expected one of 'left'") as caught:
            call()
        assert caught.value.code == grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(PermissionDenied, match="'one model' may not use 'none'; expected one of 'left'"):
        nobodys.step([0.5])


def test_a_method_that_is_not_allowed_is_refused(calling):
    """A caller may call the methods of its token alone."""
    client = calling("step")
    client.step([0.5])
    with pytest.raises(PermissionDenied, match="'step' may not call Forward; expected one of 'Step', 'StreamSteps'"):
        client.forward([[0.5]])


def test_more_rows_than_allowed_are_refused(calling):
    """The rows of a token bound a call, and a stream."""
    client = calling("narrow")
    client.step([[0.5]] * 2)
    with pytest.raises(ResourceExhausted, match="got 3 rows, expected at most 2: the limit of caller 'narrow'"):
        client.step([[0.5]] * 3)
    with pytest.raises(ResourceExhausted, match="got 3 rows, expected at most 2: the limit of caller 'narrow'"):
        client.stream(rows=3).step([[0.5]] * 3)


def test_calls_beyond_the_rate_are_told_when_to_come_again(calling, server, known):
    """A call too many is refused at once, with the seconds after which the next is due; others do not notice."""
    client, other = calling("slow"), calling("all")
    client.step([0.5])
    with pytest.raises(ResourceExhausted, match="'slow' exceeded its rate limit of 0\\.5 calls per second") as caught:
        client.step([0.5])
    other.step([0.5])
    metadata = (("authorization", f"Bearer {known[0]['slow']}"),)
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as raw:
        lstm_pb2_grpc.LstmServiceStub(channel).ListModels(lstm_pb2.ListModelsRequest(), metadata=metadata)
    trailing = dict(raw.value.trailing_metadata())
    retry = error_details_pb2.RetryInfo()
    status_pb2.Status.FromString(trailing["grpc-status-details-bin"]).details[1].Unpack(retry)

    assert caught.value.retry_after == 2
    assert retry.retry_delay.seconds == 2


def test_calls_at_a_time_are_bounded(calling):
    """A stream holds the place of a call; when it has ended, the next finds it free."""
    client = calling("single")
    with client.stream() as stream:
        stream.step([0.5])
        with pytest.raises(ResourceExhausted, match="1 calls of 'single' are running; expected fewer than 2") as caught:
            client.step([0.5])

        assert caught.value.retry_after == 0.1
    while True:  # until the server has seen the end of the stream
        try:
            client.step([0.5])
            break
        except ResourceExhausted:
            continue


def test_health_is_open_by_choice(known, server):
    """Probes need no token, unless the server was told so."""
    with grpc.insecure_channel(server.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    with serving(SUNSPOTS, "--tokens", known[1], "--no-open-health", *QUICK) as closed:
        refused = run("health", "--address", closed.address)
        token = known[1].with_name("token")
        token.write_text(known[0]["all"] + "\n")
        let_in = run("health", "--address", closed.address, "--token-file", token)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert (refused.returncode, "UNAUTHENTICATED: got no token" in refused.stderr) == (1, True)
    assert (let_in.returncode, let_in.stdout) == (0, "SERVING\n")


def test_reflection_needs_a_token(server, known):
    """The contract is told to those alone who may call."""
    with grpc.insecure_channel(server.address) as channel:
        ask = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as caught:
            list(ask(iter([b""])))
        answers = list(ask(iter([b":\x00"]), metadata=(("authorization", f"Bearer {known[0]['all']}"),)))

    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert b"lstmserve.v1.LstmService" in answers[0]


def test_the_command_line_client_takes_a_token_from_a_file(server, known, tmp_path):
    """`lstmserve-client --token-file` calls with the token that stands there."""
    file = tmp_path / "token"
    file.write_text(known[0]["all"] + "\n")
    without = run("--address", server.address, "--name", "right", "model", program=CLIENT)
    ended = run("--address", server.address, "--token-file", file, "--name", "right", "model", program=CLIENT)

    assert (without.returncode, "got no token" in without.stderr) == (1, True)
    assert (ended.returncode, '"right"' in ended.stdout) == (0, True)


def test_the_asyncio_client_takes_a_token(server, known):
    """Calls and streams of `AsyncClient` carry it, also one that a function gives."""

    async def scenario():
        """Has a call and a stream made."""
        async with AsyncClient(server.address, model="left", token=lambda: known[0]["all"]) as client:
            output, _ = await client.step([0.5])
            async with client.stream() as stream:
                return output.tolist(), (await stream.step([0.5])).tolist()

    output, streamed = asyncio.run(scenario())

    assert [output] == streamed


def test_no_secret_is_logged(server, known):
    """Neither tokens nor their hashes come up in the log."""
    with Client(server.address, model="left", token=GUESSED) as client, pytest.raises(Unauthenticated):
        client.step([0.5])
    shown = str(server.log)

    assert not [token for token in (*known[0].values(), GUESSED) if token in shown]
    assert not [token for token in known[0].values() if token_file.digest(token).hex() in shown]


@pytest.mark.slow
def test_tokens_change_under_load_and_no_call_fails(tmp_path):
    """Callers go from one token to the next while the file changes thirty times, and not one call fails; those taken out are."""
    file = File(tmp_path / "tokens.toml")
    current = [file.add("reader")]
    failed, done = [], 0

    async def scenario(address, live):
        """Has callers go from one token to the next."""
        nonlocal done
        over = asyncio.Event()

        async def load():
            """Calls until it is over."""
            nonlocal done
            async with AsyncClient(address, token=lambda: current[0]) as client:
                while not over.is_set():
                    try:
                        await client.step([0.5])
                        done += 1
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed call
                        failed.append(error)

        callers = [asyncio.create_task(load()) for _ in range(4)]
        for _ in range(10):
            newer = file.add("reader")
            file.write()
            await asyncio.to_thread(live.wait_for, "tokens_reloaded")
            older, current[0] = current[0], newer
            hashes, rules = file.entries["reader"]
            async with AsyncClient(address, token=newer) as another:
                for _ in range(20):  # calls that were under way with the older one have ended after as many of others
                    await another.step([0.5])
            file.entries["reader"] = (hashes[-1:], rules)
            file.write()
            await asyncio.to_thread(live.wait_for, "tokens_reloaded")
            async with AsyncClient(address, token=older) as late:
                with pytest.raises(Unauthenticated):
                    await late.step([0.5])
        over.set()
        await asyncio.gather(*callers)

    with serving(SUNSPOTS, "--tokens", file.write(), *QUICK) as live:
        asyncio.run(scenario(live.address, live))

    assert failed == []
    assert done >= 200


def test_a_stream_ends_when_its_token_is_taken_out(tmp_path):
    """A message on a stream that continues beyond its token is refused, so that a token that leaked is worth nothing soon."""
    file = File(tmp_path / "tokens.toml")
    leaked, good = file.add("leaked"), file.add("good")
    with (
        serving(SUNSPOTS, "--tokens", file.write(), *QUICK) as live,
        Client(live.address, token=leaked) as client,
        Client(live.address, token=good) as other,
        client.stream() as stream,
    ):
        stream.step([0.5])
        del file.entries["leaked"]
        file.write()
        with calling_on(other):  # the file is looked at when someone calls
            live.wait_for("tokens_reloaded")
        with pytest.raises(Unauthenticated, match="the token of 'leaked' is no longer valid"):
            stream.step([0.5])


@contextlib.contextmanager
def calling_on(client):
    """Lets a client call again and again, from a thread, as long as the context lasts."""
    over = threading.Event()

    def call():
        while not over.is_set():
            client.step([0.5])

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def test_a_file_that_makes_no_sense_any_more_changes_nothing(tmp_path):
    """The tokens from before continue being good, and the log says what is wrong."""
    file = File(tmp_path / "tokens.toml")
    token = file.add("reader")
    noted, told = [], asyncio.Event()
    made = authenticators.TokenAuth(file.write(), lambda file, accepted: (noted.append((file, accepted)), told.set()))
    watching = asyncio.create_task(made.watch())
    file.path.write_text("[[caller")
    await told.wait()
    watching.cancel()
    still = made.authenticate((("authorization", f"Bearer {token}"),))

    assert still.caller.name == "reader"
    assert noted == [("tokens", False)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[[caller", "is not valid TOML"),
        ("", "got the keys none, expected [[caller]] entries alone"),
        ("[[user]]\nname = 'a'", "got the keys user, expected [[caller]] entries alone"),
        ("[[caller]]\ntokens = ['x']", "caller 1 has no name; expected a text"),
        ("[[caller]]\nname = ''\ntokens = [T]", "caller 1 has no name; expected a text"),
        ("[[caller]]\nname = 7\ntokens = [T]", "caller 1 has no name; expected a text"),
        ('[[caller]]\nname = "a\\u0007"\ntokens = [T]', "caller 1 has no name; expected a text"),
        ("[[caller]]\nname = 'a'", "caller 'a' has no tokens, or one that is not sha256: and 64 digits"),
        ("[[caller]]\nname = 'a'\ntokens = ['secret']", "caller 'a' has no tokens, or one that is not sha256: and 64"),
        ("[[caller]]\nname = 'a'\nrow = 1", "caller 1 has the key 'row'; expected some of name, tokens, models"),
        ("[[caller]]\nname = 'a'\ntokens = [T]\nrows = 0", "caller 'a' has rows = 0; expected an integer above 0"),
        ("[[caller]]\nname = 'a'\ntokens = [T]\nrows = true", "caller 'a' has rows = True; expected an integer"),
        (
            "[[caller]]\nname = 'a'\ntokens = [T]\ncalls_per_second = nan",
            "has calls_per_second = nan; expected a number",
        ),
        (
            "[[caller]]\nname = 'a'\ntokens = [T]\nmethods = ['Walk']",
            "caller 'a' has the method 'Walk'; expected some of",
        ),
        ("[[caller]]\nname = 'a'\ntokens = [T]\nmodels = 'x'", "caller 'a' has models that are not list of texts"),
        ("[[caller]]\nname = 'a'\ntokens = [T]\n[[caller]]\nname = 'b'\ntokens = [T]", "a token is there twice"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path, content, text):
    """The text says where, and shows nothing secret."""
    path = tmp_path / "tokens.toml"
    path.write_text(content.replace("T", f"'sha256:{'0' * 64}'"))
    with pytest.raises(errors.StartupError) as caught:
        authenticators.TokenAuth(path, lambda file, accepted: None)

    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    """The server does not start, and says why."""
    ended = run("serve", SUNSPOTS, "--tokens", tmp_path / "none.toml", "--listen", "127.0.0.1:0")

    assert ended.returncode == 3
    assert f"lstmserve: cannot tell who may call: {tmp_path}/none.toml cannot be read: No such file or directory\n" in (
        ended.stderr
    )


def test_the_command_makes_an_entry_and_shows_the_token_once(tmp_path):
    """Its standard output can be appended to the file, and holds the hash alone."""
    ended = CliRunner().invoke(program, ["token", 'the "reader"'])
    token = ended.stderr.split()[-1]
    file = tmp_path / "tokens.toml"
    file.write_text(ended.stdout)
    ((name, (_, hashes)),) = token_file.read(file).items()

    assert name == 'the "reader"'
    assert [token_file.digest(token)] == hashes
    assert token not in ended.stdout
    assert list(tomllib.loads(ended.stdout)) == ["caller"]


def test_all_tokens_are_compared_whichever_is_right(monkeypatch, tmp_path):
    """The time that an answer takes does not tell where in the file a token stands."""
    file = File(tmp_path / "tokens.toml")
    first, *_, last = (file.add(f"caller {number}") for number in range(5))
    made = authenticators.TokenAuth(file.write(), lambda file, accepted: None)
    compared = []
    compare = authenticators.hmac.compare_digest
    monkeypatch.setattr(authenticators.hmac, "compare_digest", lambda *both: compared.append(1) or compare(*both))
    for token in (first, last, GUESSED):
        compared.clear()
        try:
            made.authenticate((("authorization", f"Bearer {token}"),))
        except errors.Unauthenticated:
            assert token == GUESSED

        assert len(compared) == 5


def test_a_caller_keeps_its_calls_when_its_rules_change():
    """The calls that are under way count for the new rules too."""
    caller = callers.Caller("reader", callers.CallerPolicy(concurrent_calls=2))
    with caller.call():
        caller.update_policy(callers.CallerPolicy(concurrent_calls=1))
        with pytest.raises(errors.Overloaded), caller.call():
            pass
    with caller.call():
        pass


def test_a_caller_with_several_models_has_to_name_one():
    """Without a name the error lists its own models alone."""
    caller = callers.Caller("reader", callers.CallerPolicy(models=frozenset({"a", "b"})))
    with pytest.raises(
        errors.InvalidRequest, match="got no name, and 'reader' has access to several; expected one of 'a', 'b'"
    ):
        caller.resolve_model("")

    assert caller.resolve_model("b") == "b"

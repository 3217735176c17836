"""TLS and mutual TLS: who is let in, what is refused at the start, and certificates that change under load."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import ssl
import threading
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import trustme
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from lstmserve import AsyncClient, Client, Tls, Unavailable
from lstmserve_server.rpc.auth import token_file
from tests.support import node
from tests.support.live import CLIENT, QUICK, run, serving
from tests.support.paths import ROOT, SUNSPOTS


class Place:
    """A folder with an authority, and what it has signed."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.pem")
        self.issue("server", "127.0.0.1", "localhost")
        self.issue("client", "reader.example")

    def issue(self, name, *identities, **options):
        """Writes a certificate and its key."""
        issued = self.authority.issue_cert(*identities, **options)
        issued.cert_chain_pems[0].write_to_path(self.folder / f"{name}.pem")
        issued.private_key_pem.write_to_path(self.folder / f"{name}.key")

    def flags(self, *, mutual=False):
        """Returns the server's flags."""
        flags = ["--tls-certificate", self.folder / "server.pem", "--tls-key", self.folder / "server.key"]
        return (*flags, *(["--tls-client-ca", self.folder / "ca.pem"] if mutual else []))

    def tls(self, *, mutual=False, **options):
        """Returns what a client needs."""
        own = {"certificate": self.folder / "client.pem", "key": self.folder / "client.key"} if mutual else {}
        return Tls(**{"ca": self.folder / "ca.pem", **own, **options})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Returns certificates that belong together."""
    return Place(tmp_path_factory.mktemp("tls") / "own")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Returns certificates of another authority."""
    return Place(tmp_path_factory.mktemp("tls") / "foreign")


@pytest.fixture(scope="module")
def server(place):
    """Returns a server with TLS."""
    with serving(SUNSPOTS, *place.flags(), *QUICK) as live:
        yield live


@pytest.fixture(scope="module")
def mutual(place):
    """Returns a server that asks for certificates."""
    with serving(SUNSPOTS, *place.flags(mutual=True), *QUICK) as live:
        yield live


def expect_refused(address, tls):
    """Expects that a client does not reach the server."""
    with Client(address, tls=tls, timeout=2) as client, pytest.raises(Unavailable):
        client.step([0.5])


async def test_the_answer_is_the_one_of_plain_text(server, place, sunspots):
    """Over TLS both clients get the bytes that they get without."""
    with Client(sunspots.address) as plain, Client(server.address, tls=place.tls()) as client:
        expected = plain.step([0.5]).output.tobytes()
        assert client.step([0.5]).output.tobytes() == expected
        with client.stream() as stream:
            assert stream.step([0.5]).tobytes() == expected
    async with AsyncClient(server.address, tls=place.tls()) as client:
        assert (await client.step([0.5])).output.tobytes() == expected


def test_a_client_that_does_not_trust_the_server_turns_away(server, foreign):
    """A client with another authority does not talk to the server, nor one in plain text."""
    expect_refused(server.address, foreign.tls())
    expect_refused(server.address, None)


def test_a_server_of_another_name_is_turned_away(server, place):
    """The certificate must have the name in the address, or the one that is asked for."""
    expect_refused(server.address, place.tls(server_name="other.example"))
    with Client(server.address, tls=place.tls(server_name="localhost")) as client:
        assert client.step([0.5]).output.shape == (1,)


def test_several_addresses_need_a_name(server, place):
    """Several addresses go by numbers, so the name that certificates have is to be said."""
    addresses = [server.address, server.address]
    with pytest.raises(ValueError, match="several addresses with TLS need the name"):
        Client(addresses, tls=place.tls())
    with Client(addresses, tls=place.tls(server_name="localhost")) as client:
        assert client.step([0.5]).output.shape == (1,)


def test_mutual_tls_wants_a_certificate_of_its_authority(mutual, place, foreign):
    """No certificate, one of another authority, and one that has expired are refused; the right one is let in."""
    expect_refused(mutual.address, place.tls())
    stranger = {"certificate": foreign.folder / "client.pem", "key": foreign.folder / "client.key"}
    expect_refused(mutual.address, place.tls(**stranger))
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    place.issue("expired", "reader.example", not_after=past)
    expired = {"certificate": place.folder / "expired.pem", "key": place.folder / "expired.key"}
    expect_refused(mutual.address, place.tls(**expired))
    with Client(mutual.address, tls=place.tls(mutual=True)) as client:
        assert client.step([0.5]).output.shape == (1,)


def test_a_certificate_without_its_key_is_said(place):
    """Half a certificate of a client is a sentence."""
    with pytest.raises(ValueError, match="come together"):
        Client("localhost:1", tls=place.tls(certificate=place.folder / "client.pem"))


def test_the_commands_speak_tls(mutual, place):
    """`lstmserve-client` and `lstmserve health` take the same files, and without them end with 1."""
    files = (
        *("--ca", place.folder / "ca.pem"),
        *("--certificate", place.folder / "client.pem", "--key", place.folder / "client.key"),
    )

    assert _outcome(run("health", "--address", mutual.address, *files)) == (0, "SERVING\n")
    assert run("health", "--address", mutual.address).returncode == 1
    assert run("health", "--address", mutual.address, "--ca", place.folder / "none.pem").returncode == 2
    told = run("--address", mutual.address, *files, "model", program=CLIENT)
    assert (told.returncode, '"sunspots"' in told.stdout) == (0, True)


def _outcome(done):
    return done.returncode, done.stdout


def _without_key(place):
    return place.flags()[:2]


def _foreign_key(place):
    place.issue("other", "localhost")
    return ("--tls-certificate", place.folder / "server.pem", "--tls-key", place.folder / "other.key")


def _no_file(place):
    return ("--tls-certificate", place.folder / "none.pem", "--tls-key", place.folder / "server.key")


def _no_pem(place):
    return (*place.flags(), "--tls-client-ca", SUNSPOTS)


def _no_key(place):
    return ("--tls-certificate", place.folder / "server.pem", "--tls-key", place.folder / "server.pem")


def _expired(place):
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    place.issue("old", "localhost", not_after=past)
    return ("--tls-certificate", place.folder / "old.pem", "--tls-key", place.folder / "old.key")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (_without_key, 2, "TLS needs --tls-certificate and --tls-key together"),
        (_foreign_key, 3, "other.key is not that of the certificate in"),
        (_no_file, 3, "none.pem cannot be read: No such file or directory"),
        (_no_pem, 3, "holds no certificate in PEM"),
        (_no_key, 3, "holds no private key in PEM without a password"),
        (_expired, 3, "expired on "),
    ],
)
def test_what_cannot_be_served_is_said_at_the_start(place, arguments, code, text):
    """A file that is missing, wrong, expired or of another certificate is one sentence, and an exit code."""
    done = run("serve", SUNSPOTS, "--listen", "127.0.0.1:0", *arguments(place), timeout=60)

    assert code == done.returncode
    said = [line for line in done.stderr.splitlines() if line.startswith("lstmserve: ")]
    assert len(said) == 1
    assert text in said[0]


def _shown(address):
    """Returns the certificate that a server shows now."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


def test_certificates_change_under_load(tmp_path):
    """Each new certificate is shown to who connects next, and no call fails: neither on connections that are open, nor on new
    ones, nor while the files do not fit together.
    """
    place = Place(tmp_path / "rotating")
    stop, failures, calls = threading.Event(), [], [0, 0]

    def ask(number, *, anew):
        while not stop.is_set():
            try:
                with Client(server.address, tls=place.tls(), timeout=10) as client:
                    for _ in range(1 if anew else 20):
                        client.step([0.5])
                        calls[number] += 1
            except Exception as error:  # noqa: BLE001
                failures.append(error)

    with serving(SUNSPOTS, *place.flags(), *QUICK) as server:
        askers = [threading.Thread(target=ask, args=(n,), kwargs={"anew": bool(n)}) for n in range(2)]
        with Client(server.address, tls=place.tls()) as old:
            old.step([0.5])
            for asker in askers:
                asker.start()
            seen = {_shown(server.address)}
            for round_number in range(20):
                before = sum(calls)
                # The key first, and some calls in between: for a while the two do not belong together.
                issued = place.authority.issue_cert("127.0.0.1", "localhost")
                issued.private_key_pem.write_to_path(place.folder / "server.key")
                _shown(server.address)
                issued.cert_chain_pems[0].write_to_path(place.folder / "server.pem")
                seen.add(_shown(server.address))
                assert round_number + 2 == len(seen)
                while sum(calls) < before + 5:
                    pass
                old.step([0.5])
            stop.set()
            for asker in askers:
                asker.join()
        server.stop()

    assert failures == []
    events = [entry["event"] for entry in server.log]
    assert events.count("certificate_reloaded") == 20
    assert "certificate_not_reloaded" in events  # while the two did not belong together


def test_plain_text_beyond_this_machine_is_warned_of():
    """Who listens in plain text where others reach it is told what to do, and who does not, is not."""
    with serving(SUNSPOTS, "--listen", "0.0.0.0:0", *QUICK) as server:
        warnings = [entry for entry in server.log if entry["event"] == "plain_text"]
        server.stop()

    assert [entry["level"] for entry in warnings] == ["warning"]
    assert "--tls-certificate" in warnings[0]["advice"]


def test_health_over_http(place):
    """The metrics' port says 200 while the server is SERVING, 503 when it drains, and 404 to what it does not have."""
    arguments = ("--metrics", "127.0.0.1:0", "--lame-duck-seconds", "60")
    with serving(SUNSPOTS, *place.flags(mutual=True), *arguments) as server:
        listen = next(entry["listen"] for entry in server.log if entry["event"] == "metrics")

        assert _get(f"http://{listen}/healthz") == (200, b"SERVING\n")
        assert _get(f"http://{listen}/none")[0] == 404
        assert _get(f"http://{listen}/metrics")[0] == 200
        server.process.terminate()
        server.wait_for("draining")
        assert _get(f"http://{listen}/healthz") == (503, b"NOT_SERVING\n")
        assert server.stop() == 0


def _get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_workers_speak_tls(place):
    """Several workers after one port all show the certificate."""
    with serving(SUNSPOTS, *place.flags(), "--workers", "2", *QUICK) as server:
        server.wait_for("all_workers_ready")
        for _ in range(8):
            with Client(server.address, tls=place.tls()) as client:
                assert client.step(np.float32([0.5])).output.shape == (1,)
        assert server.stop() == 0


def test_stock_services_over_tls(server, place):
    """Health and reflection of gRPC's own packages answer through TLS."""
    with grpc.secure_channel(server.address, place.tls().credentials()) as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status == 1
        assert "lstmserve.v1.LstmService" in ProtoReflectionDescriptorDatabase(channel).get_services()


@pytest.mark.node
def test_a_stock_client_of_another_language(place, tmp_path):
    """Node's gRPC, knowing nothing of us, asks for the health, learns the contract by reflection, and calls, by mutual TLS and a token."""
    token = token_file.make()
    (tmp_path / "tokens.toml").write_text(token_file.entry("stock", token))
    files = [file.serialized_pb for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)]
    descriptors = descriptor_pb2.FileDescriptorSet(file=map(descriptor_pb2.FileDescriptorProto.FromString, files))
    (place.folder / "descriptors.binpb").write_bytes(descriptors.SerializeToString())
    folder = node.install(tmp_path)
    script = shutil.copy(ROOT / "tests" / "support" / "stock_client.mjs", folder)
    flags = (*place.flags(mutual=True), "--tokens", tmp_path / "tokens.toml")
    with serving(f"sunspots={SUNSPOTS}", *flags, *QUICK) as live:
        said = json.loads(node.run(script, live.address, place.folder, token, cwd=folder))
        with Client(live.address, tls=place.tls(mutual=True), token=token) as client:
            _, state = client.step([0.5])
            expected = client.step([0.25], state).output

    assert said["status"] == "SERVING"
    assert {"lstmserve.v1.LstmService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= set(
        said["services"]
    )
    assert expected.astype(float).tolist() == said["output"]
    assert said["models"] == ["sunspots"]
    assert grpc.StatusCode.UNAUTHENTICATED.value[0] == said["refused"]
    assert said["kinds"] == ["opened", "output", "checkpoint"]

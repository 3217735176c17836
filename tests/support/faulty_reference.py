"""A reference process that does not behave, or does nothing but behave: what shadow mode must bear.

    python tests/support/faulty_reference.py serve ...      runs the server with this as its reference
    python tests/support/faulty_reference.py HOW DESCRIPTOR     is the reference

How it is odd is in the variable ODD_REFERENCE of the server's: "good" (agrees at once), "slow" (takes five seconds), "dies" (at the first
case), "garbage", "half" (stops in the midst of an answer), "deaf" (never reads), "error" (cannot compare).
"""

from __future__ import annotations

import json
import os
import sys
import threading
from multiprocessing.connection import Connection

from lstmserve.v1 import shadow_pb2
from lstmserve_server.cli import main as cli_main
from lstmserve_server.shadow import reference_process


def serve() -> None:
    """Runs the server with an odd reference."""
    reference_process.PROGRAM = (sys.executable, __file__, os.environ["ODD_REFERENCE"])
    cli_main.main()


def answer(connection: Connection, how: str) -> None:
    """Answers one case."""
    agrees = shadow_pb2.Comparison(verdict=shadow_pb2.VERDICT_AGREES).SerializeToString()
    match how:
        case "slow":
            threading.Event().wait(5)
        case "dies":
            os._exit(3)
        case "garbage":
            for _ in range(3):
                connection.send_bytes(b"\xff\xfe\x00 neither JSON nor anything else")
            return
        case "half":
            os.write(connection.fileno(), b"\x00\x00\x10\x00{")
            threading.Event().wait(60)
        case "error":
            connection.send_bytes(json.dumps({"error": "no idea"}).encode())
            connection.send_bytes(b"")
            connection.send_bytes(b"")
            return
    for part in (b"{}", agrees, b""):
        connection.send_bytes(part)


def main() -> None:
    """Is the reference."""
    how, descriptor = sys.argv[1:]
    connection = Connection(int(descriptor))
    setup = json.loads(connection.recv_bytes())
    witness = shadow_pb2.ReferenceModel(text="odd").SerializeToString().hex()
    told = {model["name"]: {"witness": witness, "noise_floor": 0.0} for model in setup["models"]}
    connection.send_bytes(json.dumps({"versions": {"keras": "none"}, "models": told, "held": []}).encode())
    if how == "deaf":
        threading.Event().wait(600)
    while True:
        try:
            connection.recv_bytes()
            connection.recv_bytes()
        except EOFError:
            return
        answer(connection, how)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        main()

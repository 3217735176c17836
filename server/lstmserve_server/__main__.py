"""Runs the command line: `python -m lstmserve_server`."""

from lstmserve_server.cli.main import main

main()

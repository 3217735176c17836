"""Runs the command line: `python -m lstmserve`."""

from lstmserve.cli.main import main

main()

"""The help of every command, of the server and of the client."""

from __future__ import annotations

import click
import pytest

from lstmserve.cli.commands import lstmserve_client
from lstmserve_server.cli.commands import lstmserve

MAX_WORDS = 12


def options_of(group):
    """Yields each option of a group and of its commands, with the name that people type."""
    for command in (group, *group.commands.values()):
        for option in command.params:
            if isinstance(option, click.Option):
                yield pytest.param(option, id=f"{command.name} {option.opts[-1]}")


@pytest.mark.parametrize("option", [*options_of(lstmserve), *options_of(lstmserve_client)])
def test_the_help_of_a_flag_is_a_fragment(option):
    """The help of a flag has at most twelve words, begins with a capital or a value, and ends with a period."""
    words = option.help.split()

    assert len(words) <= MAX_WORDS
    assert words[0][0].isupper() or words[0].rstrip(":") in option.type.to_info_dict().get("choices", ())
    assert words[-1].endswith(".")

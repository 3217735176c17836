"""Files that change while they are watched."""

from __future__ import annotations

import pytest

from lstmserve_server.core.reloading import ReloadingFile


class Content:
    """Files whose reading can fail."""

    def __init__(self, path):
        self.path = path
        self.path.write_text("1")
        self.error = None

    def read(self):
        """Returns the number in the file."""
        if self.error is not None:
            raise ValueError("cannot be read") from self.error
        return int(self.path.read_text())

    def changed_to(self, text):
        """Writes it under another name first."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)


@pytest.fixture
def content(tmp_path):
    """Returns files whose reading can fail."""
    return Content(tmp_path / "number")


def test_a_change_counts_when_it_was_read(content):
    """While the system refuses to open a file, it is tried again at each look; that is said once."""
    watched = ReloadingFile([content.path], content.read, settles=False)
    content.changed_to("2")
    content.error = OSError(24, "Too many open files")
    with pytest.raises(ValueError, match="cannot be read"):
        watched.newer()
    assert [watched.newer() for _ in range(3)] == [None, None, None]

    content.error = None
    assert [watched.newer() for _ in range(2)] == [2, None]


def test_what_makes_no_sense_is_said_once_and_read_again_when_it_changes(content):
    """The same words a second time, after something that did make sense, are said again."""
    watched = ReloadingFile([content.path], content.read, settles=False)
    for _ in range(2):
        content.changed_to("one")
        with pytest.raises(ValueError, match="invalid literal"):
            watched.newer()
        assert watched.newer() is None
        content.changed_to("3")
        assert watched.newer() == 3


def test_a_file_that_is_written_in_pieces_is_read_when_it_is_whole(content):
    """A change is taken when two looks have seen the same."""
    watched = ReloadingFile([content.path], content.read, settles=True)
    seen = []
    for text in ("1", "12", "123"):
        content.path.write_text(text)
        seen.append(watched.newer())
    seen += [watched.newer(), watched.newer()]

    assert seen == [None, None, None, 123, None]


def test_a_file_that_changes_while_it_is_read_is_read_again(content):
    """What was read then is not taken."""
    read, numbers = content.read, iter([lambda: content.changed_to("3"), lambda: None])

    def disturbed():
        found = read()
        next(numbers, lambda: None)()
        return found

    watched = ReloadingFile([content.path], read, settles=False)
    watched._read = disturbed
    content.changed_to("2")

    assert [watched.newer(), watched.newer()] == [None, 3]

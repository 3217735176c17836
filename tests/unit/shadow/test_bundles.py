"""Bundles on disk: bounded in number and bytes, and never half written."""

from __future__ import annotations

from pathlib import Path

from lstmserve_server.shadow.bundles import Bundles


def test_a_full_disk(tmp_path, monkeypatch):
    """A full disk loses the bundle and nothing else, leaves no half of one, and is forgotten when there is room again."""
    bundle = _Bundle()
    bundles = Bundles(str(tmp_path), 10, 10**6)
    write = Path.write_bytes

    def full(path, data):
        write(path, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert bundles.write(bundle) is None
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(Path, "write_bytes", write)
    assert bundles.write(bundle)
    assert len(list(tmp_path.iterdir())) == 1


def test_bundles_keep_to_their_size(tmp_path):
    """No bundle is written that would take the folder over its bytes."""
    bundles = Bundles(str(tmp_path), 10, 2500)
    assert [bool(bundles.write(_Bundle())) for _ in range(4)] == [True, True, False, False]
    assert not bundles.wanted


class _Bundle:
    """A bundle of a thousand bytes."""

    class captured:  # noqa: N801 - stands for an attribute
        model = "a/model"

    def to_bytes(self):
        return bytes(1000)

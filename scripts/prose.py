"""Finds the phrases that CONTRIBUTING.md asks to avoid: `make check` runs it, with codespell for single words.

It reads docstrings, comments and texts of Python files, comments of .proto files, and the pages that are given. It knows only the
phrases below, so that it never complains of good English; what it finds is printed with what to write.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PHRASES: Final = (
    (r"\btakes? note\b", "records, counts"),
    (r"\btook note\b", "recorded"),
    (r"\bso many\b", "N, up to N, at most N"),
    (r"\bso large a\b", "a larger, that share"),
    (r"(?<!there )\bis no (?!longer\b|more\b|such\b|different\b|limit\b|need\b)", "is not, isn't a"),
    (r"(?<!there )\bare no (?!longer\b|more\b)", "are not"),
    (r"\bstands? (in|behind|before)\b", "is in, follows, precedes"),
    (r"\b(go|goes|going|went) on with\b", "continue with"),
    (r"\bany more\b", "no longer"),
    (r"\bbut (for|that)\b", "except, a second sentence"),
    (r"\b(it|this|which|that) (is|was|are|were) told\b", "receives, is called with"),
    (r"\bmakes? the acquaintance\b", "connects to"),
    (r"\bcame; expected\b", "got X, expected Y"),
    (r"\bthe way of\b", "how, the path of"),
    (r"\bwherever\b", "where"),
)
"""Each phrase as a regular expression, and what to write instead."""

_BEGINNINGS: Final = re.compile(r"(What|Whether|Who|How)\b")
_PATTERNS: Final = [(re.compile(pattern, re.IGNORECASE), better) for pattern, better in PHRASES]


def main(paths: list[str]) -> int:
    """Prints what it finds in files and folders; returns the exit code."""
    files = [file for path in map(Path, paths) for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    found = [line for file in files for line in _findings(file)]
    print("\n".join(found) if found else "prose is plain")
    return bool(found)


def _findings(file: Path) -> Iterator[str]:
    hidden = any(part.startswith(".") for part in file.parts)
    if hidden or file.suffix not in (".py", ".proto", ".md") or ("v1" in file.parts and file.suffix == ".py"):
        return
    text = file.read_text(encoding="utf-8")
    for number, part in _parts(file, text):
        flat = re.sub(r"\s+", " ", part)
        for pattern, better in _PATTERNS:
            for match in pattern.finditer(flat):
                yield f"{file}:{number}: {flat[max(0, match.start() - 30) : match.end() + 20]!r}: write {better}"
    if file.suffix == ".py":
        yield from _beginnings(file, text)


def _parts(file: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yields the prose of a file, each part with its line number."""
    if file.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT):
                yield token.start[0], token.string
    elif file.suffix == ".proto":
        for match in re.finditer(r"(?:^ *//.*\n)+", text, re.MULTILINE):
            yield text.count("\n", 0, match.start()) + 1, re.sub(r"^ *//", "", match[0], flags=re.MULTILINE)
    else:
        yield from ((number, line) for number, line in enumerate(text.splitlines(), 1))


def _beginnings(file: Path, text: str) -> Iterator[str]:
    """Yields docstrings of modules, classes and functions that begin with a question."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            if _BEGINNINGS.match(docstring) and not _is_flag(node, docstring):
                number = getattr(node, "lineno", 1)
                yield f"{file}:{number}: {docstring[:50]!r}: begin with the thing or a verb"


def _is_flag(node: ast.AST, docstring: str) -> bool:
    """Returns whether it is a property that says whether something holds, for which there is no better beginning."""
    return docstring.startswith("Whether") and any(
        isinstance(decorator, ast.Name) and decorator.id == "property"
        for decorator in getattr(node, "decorator_list", ())
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

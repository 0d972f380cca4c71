#!/usr/bin/env python3
"""Check that the documentation points at what is there.

Every relative link in every Markdown file leads to a file or folder of this project, every
anchor to a heading or an `id`, and every path that README.md names in backticks exists. Links to
other hosts are not followed. Exit 1 and one line a problem where something is missing.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
# Made by the scripts, so not in a fresh clone; or not the project's own.
GENERATED = {".venv", "var", ".env", "htmlcov"}
PATH_SUFFIX = re.compile(r"\.(cfg|css|html|in|ini|jsonl?|js|md|png|py|rst|sh|svg|toml|txt|ya?ml)$")

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
INLINE_LINK = re.compile(r"\]\(\s*(<[^>\n]*>|[^\s()]+(?:\([^\s()]*\)[^\s()]*)*)[^()\n]*\)")
DEFINITION = re.compile(r"^ {0,3}\[[^\]\n]+\]:\s*(<[^>\n]*>|\S+)", re.MULTILINE)
HTML_LINK = re.compile(r"""<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=["']([^"']+)["']""")
HTML_ID = re.compile(r"""<[a-z0-9]+\b[^>]*?\b(?:id|name)=["']([^"']+)["']""")
SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)
PLAIN_PATH = re.compile(r"^(?:\./)?[\w.-]+(?:/[\w.-]+)*/?$")


def main() -> int:
    """Check the whole project."""
    documents = {path: path.read_text(encoding="utf-8") for path in markdown_files()}
    problems = []
    count = 0
    for path, text in documents.items():
        for link in links(text):
            count += 1
            if problem := broken(path, link, documents):
                problems.append(f"{path.relative_to(ROOT)}: ({link}) {problem}")
    readme = ROOT / "README.md"
    for name in named_paths(documents.get(readme, "")):
        count += 1
        if not exists(name):
            problems.append(f"README.md: `{name}` is not a path of this project")
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    sys.stdout.write(
        f"{count} links and paths in {len(documents)} documents, {len(problems)} broken\n"
    )
    return 1 if problems else 0


def project_files() -> Iterator[Path]:
    """Yield every file of the project, without what is generated or hidden tools keep."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(
            name
            for name in folders
            if name not in GENERATED | {"node_modules", "__pycache__", ".git"}
            and not name.endswith("_cache")
        )
        yield from (Path(folder) / name for name in sorted(files))


def markdown_files() -> list[Path]:
    """Return the project's documents."""
    return [path for path in project_files() if path.suffix == ".md"]


def without_fences(text: str) -> str:
    """Blank the lines of fenced code blocks, keeping the others where they are."""
    kept = []
    fence = ""
    for line in text.splitlines():
        match = FENCE.match(line)
        if fence:
            if match and match[1].startswith(fence):
                fence = ""
            kept.append("")
        elif match:
            fence = match[1]
            kept.append("")
        else:
            kept.append(line)
    return "\n".join(kept)


def links(text: str) -> Iterator[str]:
    """Yield the targets of all links and images that stay within the project."""
    prose = CODE_SPAN.sub("", without_fences(text))
    for pattern in (INLINE_LINK, DEFINITION, HTML_LINK):
        for match in pattern.finditer(prose):
            target = match[1].strip("<>")
            if target and not SCHEME.match(target):
                yield target


def anchors(text: str) -> set[str]:
    """Return what a fragment may name, as GitHub derives it from headings, and explicit ids."""
    found: set[str] = set()
    prose = without_fences(text)
    for line in prose.splitlines():
        if match := HEADING.match(line):
            base = slug = heading_slug(match[1])
            number = 0
            while slug in found:
                number += 1
                slug = f"{base}-{number}"
            found.add(slug)
    found.update(match[1] for match in HTML_ID.finditer(prose))
    return found


def heading_slug(heading: str) -> str:
    """Return the anchor of a heading: lower case, spaces as hyphens, no punctuation."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"<[^>]+>", "", text)
    kept = (
        character
        for character in text.strip().lower()
        if character in "-_ " or unicodedata.category(character)[0] in "LNM"
    )
    return "".join(kept).replace(" ", "-")


def broken(path: Path, link: str, documents: dict[Path, str]) -> str:
    """Return what is wrong with the link, or nothing."""
    target, _, fragment = unquote(link).partition("#")
    target = target.partition("?")[0]
    place = path
    if target:
        start = ROOT if target.startswith("/") else path.parent
        place = Path(os.path.normpath(start / target.lstrip("/")))
        if not place.is_relative_to(ROOT):
            return "leads out of the project"
        if place.relative_to(ROOT).parts[:1] and place.relative_to(ROOT).parts[0] in GENERATED:
            return "leads to a file that is not in a clone"
        if not place.exists():
            return "leads to nothing"
    if fragment and place in documents and fragment not in anchors(documents[place]):
        return f"has no heading or id '{fragment}' to lead to"
    return ""


def named_paths(text: str) -> Iterator[str]:
    """Yield what stands in backticks and looks like a path of this project.

    A command counts by its first word if that starts with `./`. Otherwise a path ends in a known
    suffix or a slash; a name like `audit/v1` could be anything.
    """
    for match in CODE_SPAN.finditer(without_fences(text)):
        name = match[2].strip()
        if name.startswith("./"):
            name = name.split()[0]
        if not PLAIN_PATH.match(name) or name.removeprefix("./").split("/")[0] in GENERATED:
            continue
        if name.startswith("./") or name.endswith("/") or PATH_SUFFIX.search(name):
            yield name


def exists(name: str) -> bool:
    """Tell whether the path exists; a bare file name may be anywhere in the project."""
    if (ROOT / name).exists():
        return True
    return "/" not in name and any(path.name == name for path in project_files())


if __name__ == "__main__":
    sys.exit(main())

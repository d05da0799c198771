"""What the Dockerfile makes of this repository, without Docker: its files, its environment, its commands."""

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]


class Instruction(NamedTuple):
    name: str
    argument: str

    def words(self) -> list[str]:
        """Return a command in its exec form; fails when it is in the shell's, in which no signal arrives."""
        words = json.loads(self.argument)
        assert words, self
        assert all(isinstance(word, str) for word in words), self
        return words


def instructions(dockerfile: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile, its comments and line continuations undone."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(name.upper(), rest.strip()) for name, _, rest in map(_split, joined.splitlines())]


def final_stage(dockerfile: str) -> list[Instruction]:
    """Return the instructions that make the image itself."""
    found = instructions(dockerfile)
    return found[max(n for n, each in enumerate(found) if each.name == "FROM") :]


def environment(stage: list[Instruction]) -> dict[str, str]:
    """Return what ``ENV`` sets."""
    pairs = [word for each in stage if each.name == "ENV" for word in shlex.split(each.argument)]
    return dict(pair.split("=", 1) for pair in pairs)


def command(stage: list[Instruction], name: str) -> list[str]:
    """Return the words of ``CMD``, or of ``HEALTHCHECK``'s."""
    [said] = [each for each in stage if each.name == name]
    return Instruction(name, said.argument.rpartition("CMD ")[2]).words()


def context(folder: Path) -> list[Path]:
    """Return the files below ``folder`` that its ``.dockerignore`` lets through, relative to it.

    Source: "Build context", Docker's manual: the last pattern that matches a
    path, or a folder it is in, decides.
    """
    patterns = [
        line.strip()
        for line in (folder / ".dockerignore").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    found = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if relative.parts[0] not in (".git", ".venv") and path.is_file() and _passes(relative, patterns):
            found.append(relative)
    return found


def _split(line: str) -> tuple[str, str, str]:
    return line.partition(" ")


def _passes(path: Path, patterns: list[str]) -> bool:
    passes = True
    for pattern in patterns:
        matcher = _matcher(pattern.removeprefix("!").strip("/"))
        if any(matcher.fullmatch(str(each)) for each in (path, *path.parents)):
            passes = pattern.startswith("!")
    return passes


def _matcher(pattern: str) -> re.Pattern[str]:
    """Return a pattern's expression: ``*`` is within a name, ``**/`` any number of folders."""
    parts = re.split(r"(\*\*/|\*|\?)", pattern)
    wild = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts), re.DOTALL)

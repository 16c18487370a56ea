"""The command line of a program as a template: placeholders, and optional parts that fall away without a value."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pbt.errors import TaskError

PLACEHOLDERS = (
    "start",
    "out",
    "steps",
    "first_step",
    "last_step",
    "seed",
    "round_seed",
    "member",
    "round",
    "device",
    "devices",
    "threads",
    "hparams",
)
"""The placeholders besides the hyperparameters."""
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

Words = Sequence["str | Sequence[str]"]
"""A command as a list of words; a list in it is an optional part."""


def text_of(value: Any) -> str:
    """A value as a word of a command line: strings as they are, others as in JSON."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple):
        return json.dumps(value)
    return repr(value) if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class Word:
    """A word: literal text and the names of placeholders, alternating."""

    literals: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Word":
        """Parse a word.

        Raises:
            TaskError: A brace without its partner.
        """
        literals, names, end = [""], [], 0
        for match in _BRACES.finditer(text):
            literals[-1] += text[end : match.start()]
            end = match.end()
            if match[0] in ("{{", "}}"):
                literals[-1] += match[0][0]
            elif match[1] is not None:
                names.append(match[1])
                literals.append("")
            else:
                raise TaskError(f"command: expected pairs of braces in '{text}'; write {{{{ and }}}} for braces")
        literals[-1] += text[end:]
        return cls(tuple(literals), tuple(names))

    def fill(self, values: Mapping[str, Any]) -> str:
        """The word with its placeholders replaced."""
        filled = [self.literals[0]]
        for name, literal in zip(self.names, self.literals[1:], strict=True):
            filled += [text_of(values[name]), literal]
        return "".join(filled)


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive words that are used together."""

    words: tuple[Word, ...]
    optional: bool

    @property
    def names(self) -> set[str]:
        """The placeholders in it."""
        return {name for word in self.words for name in word.names}


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed command line."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, command: str | Words) -> "Template":
        """Parse a command: a string, split as a shell splits it, or a list of words.

        Raises:
            TaskError: It is empty, or quotes, braces or brackets have no partner.
        """
        cut = list(_cut(command) if isinstance(command, str) else _listed(command))
        parts = tuple(Part(tuple(map(Word.of, words)), optional) for words, optional in cut if words)
        if not parts or parts[0].optional:
            raise TaskError("command: expected a program and its arguments, as 'python train.py --out {out}', got none")
        for part in parts:
            if part.optional and not part.names:
                shown = " ".join(word.literals[0] for word in part.words)
                raise TaskError(
                    f"command: expected a placeholder in the optional part [{shown}], found none; for brackets that "
                    f"are passed to the program, write '[{shown}]' in quotes"
                )
        return cls(parts)

    @property
    def names(self) -> set[str]:
        """All placeholders."""
        return {name for part in self.parts for name in part.names}

    @property
    def required(self) -> set[str]:
        """The placeholders that need a value in every round."""
        return {name for part in self.parts if not part.optional for name in part.names}

    @property
    def fixed(self) -> list[str]:
        """The words before the first placeholder: the program, and perhaps a script."""
        found = []
        for word in (word for part in self.parts for word in part.words):
            if word.names:
                break
            found.append(word.literals[0])
        return found

    def fill(self, values: Mapping[str, Any]) -> list[str]:
        """The words of the command; optional parts without a value fall away."""
        parts = [part for part in self.parts if not part.optional or part.names <= values.keys()]
        return [word.fill(values) for part in parts for word in part.words]


def _listed(command: Words) -> Iterator[tuple[list[str], bool]]:
    for item in command:
        inner = [item] if isinstance(item, str) else item
        if not isinstance(inner, (list, tuple)) or not all(isinstance(word, str) for word in inner):
            raise TaskError(f"command: expected words, or lists of words for optional parts, got {item!r:.80}")
        yield list(inner), not isinstance(item, str)


def _cut(command: str) -> Iterator[tuple[list[str], bool]]:
    """The words of a string, cut at its optional parts: `[` at the start of a word up to `]` at the end of one."""
    start, opened, quote, i = 0, False, "", 0
    while i < len(command):
        char = command[i]
        if quote:
            i += char == "\\" and quote == '"'
            quote = "" if char == quote else quote
        elif char == "\\":
            i += 1
        elif char in "'\"":
            quote = char
        elif char == "[" and (i == 0 or command[i - 1].isspace()):
            if opened:
                raise TaskError(
                    f"command: expected no optional part inside another, got '{command[start - 1 : i + 1]}'"
                )
            yield _words(command[start:i]), False
            start, opened = i + 1, True
        elif char == "]" and opened and (i + 1 == len(command) or command[i + 1].isspace()):
            yield _words(command[start:i]), True
            start, opened = i + 1, False
        i += 1
    if opened:
        raise TaskError(f"command: expected ] after '[{command[start:]}'; quote brackets that are no optional part")
    yield _words(command[start:]), False


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise TaskError(f"command: expected words as in a shell, got '{text.strip()}' ({error})") from error

"""The pages, as a reader sees them: headings, links, blocks, and the commands in those.

A block that is to be saved says so in the line above it, in a comment that is not shown: `<!-- file: NAME -->`. Its text
says so as well, for the reader.
"""

import dataclasses
import functools
import pathlib
import re
import subprocess
from typing import Optional

ROOT = pathlib.Path(__file__).resolve().parents[2]
FENCE = re.compile(r"( *)```(\S*)\s*$")
FILE = re.compile(r"\s*<!-- file: (\S+) -->\s*$")
COMMANDS = "sh", "console"


@dataclasses.dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    file: Optional[str]

    @property
    def where(self):
        return f"{self.page}:{self.line}"


@dataclasses.dataclass(frozen=True)
class Command:
    """One statement of the shell, and what the page says will come of it."""

    where: str
    text: str
    expected: Optional[str]

    @property
    def code(self):
        """The command without its comments."""
        return re.sub(r"(^|\s)#.*", r"\1", self.text).strip()

    @property
    def status(self):
        """The HTTP status that a comment behind it tells: `# 401, from hookwarden`."""
        told = re.search(r"\s# ([2-5]\d\d)\b", self.text)
        return told and int(told[1])


@functools.cache
def tracked():
    """Every file that is, or would be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return sorted(name for name in set(listed.stdout.split("\0")) if name and (ROOT / name).is_file())


def every_page():
    return [name for name in tracked() if name.endswith(".md")]


def guides():
    """The pages whose blocks and commands are tried."""
    return [name for name in every_page() if name == "README.md" or name.startswith("docs/") or re.fullmatch(r"deploy/.*README\.md", name)]


def text_of(page):
    return (ROOT / page).read_text()


@functools.cache
def blocks(page):
    found, lines = [], text_of(page).splitlines()
    opened, at = None, 0
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, at = fence, number
        elif opened is not None and fence and not fence[2] and len(fence[1]) == len(opened[1]):
            saved = FILE.match(lines[at - 1]) if at else None
            text = "\n".join(line[len(opened[1]) :] for line in lines[at + 1 : number]) + "\n"
            found.append(Block(page, at + 1, opened[2], text, saved and saved[1]))
            opened = None
    assert opened is None, f"{page}:{at + 1}: a block that does not end"
    return found


def prose(page):
    """The text with its blocks and its inline code blanked, so that what is left is read as Markdown."""
    lines, inside = [], False
    for line in text_of(page).splitlines():
        fence = FENCE.match(line)
        inside = not inside if fence else inside
        lines.append("" if inside or fence else line)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", lambda code: re.sub(r"[^\n]", "·", code[0]), "\n".join(lines), flags=re.DOTALL)


def headings(page):
    """Each heading's text, in order, as it is rendered."""
    inside = False
    for line in text_of(page).splitlines():
        if FENCE.match(line):
            inside = not inside
        heading = None if inside else re.match(r"#{1,6} +(.*?) *#* *$", line)
        if heading:
            yield re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])


def anchors(page):
    """GitHub's: lower case, without punctuation, hyphens for spaces, and a number where one is there before."""
    seen, found = {}, set()
    for heading in headings(page):
        anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        found.add(f"{anchor}-{count}" if count else anchor)
    return found | set(re.findall(r"""<a (?:id|name)=["']([^"']+)["']""", text_of(page)))


# ---- Commands ----------------------------------------------------------------------------------------------------------


def commands(block):
    """The statements of a block. In a `console` block each follows a `$`, and its output follows it."""
    if block.language == "sh":
        return [Command(f"{block.page}:{block.line + line}", text, None) for line, text in statements(block.text.splitlines())]
    found, lines = [], block.text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    assert starts[:1] == [0], f"{block.where}: a console begins with a command"
    for start, end in zip(starts, [*starts[1:], len(lines)]):
        typed = [lines[start][2:]]
        while start + len(typed) < end and lines[start + len(typed)].startswith("> "):
            typed.append(lines[start + len(typed)][2:])
        expected = "\n".join(lines[start + len(typed) : end])
        found.append(Command(f"{block.page}:{block.line + start + 1}", "\n".join(typed), expected))
    return found


def statements(lines):
    """Lines put together until the shell takes them for whole."""
    pending, begun = [], 0
    for number, line in enumerate(lines, 1):
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        begun = begun if pending else number
        pending.append(line)
        if not line.endswith("\\") and is_whole("\n".join(pending)):
            yield begun, "\n".join(pending)
            pending = []
    assert not pending, f"not whole: {pending}"


def is_whole(text):
    read = subprocess.run(["bash", "-n"], input=text + "\n", capture_output=True, text=True)
    return read.returncode == 0 and not read.stderr

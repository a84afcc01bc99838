"""The pages of the documentation taken apart: blocks of code, commands, headings, links and paragraphs."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
README = ROOT / "README.md"
GUIDES = [README, *sorted(DOCS.rglob("*.md"))]
PAGES = [*GUIDES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
TASKS = sorted(page for page in DOCS.glob("*.md") if page != INDEX)
# a command, without what a comment says of it
COMMAND = re.compile(r"^(?:# {3}| *)((?:[A-Z_]+=\S+ )*(?:finetune|python|make|pip)\b(?: .*?)?)(?: {2,}.*| +#.*)?$")
# stands for what the reader types
PLACEHOLDER = re.compile(r"…|(?:^|\s)[A-Z]{2,}(?=\s|$)")


class Block(NamedTuple):
    """A fenced block: what it is written in, and its text."""

    language: str
    text: str


class Link(NamedTuple):
    """A link to another page: the path as it is written, and the heading; either may be empty."""

    path: str
    anchor: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.S | re.M)]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)


def code_spans(page: Path) -> list[str]:
    """Return what stands in backticks, on one line."""
    spans = re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))
    return [" ".join(span.replace("\\|", "|").split()) for span in spans]


def commands(page: Path, program: str) -> list[str]:
    """Return the command lines of a program that a page shows, in blocks of bash and in backticks, each once."""
    lines = [line for block in blocks(page) if block.language == "bash" for line in block.text.splitlines()]
    shown = [match[1].strip() for line in lines if (match := COMMAND.match(line))]
    found = [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line) for line in [*shown, *code_spans(page)]]
    return list(dict.fromkeys(line for line in found if line.split(" ")[0] == program and not PLACEHOLDER.search(line)))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = [re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text) for text in re.findall(r"^#+ (.+)$", prose(page), re.M)]
    names = [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]
    before = [names[:place].count(name) for place, name in enumerate(names)]
    return {f"{name}-{number}" if number else name for name, number in zip(names, before, strict=True)}


def links(page: Path) -> list[Link]:
    """Return the links of a page to files of the repository and to headings."""
    text = re.sub(r"(?<!`)`[^`]+`(?!`)", "code", prose(page))
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)
    parted = [target.partition("#") for target in targets if "://" not in target]
    return [Link(path, anchor) for path, _, anchor in parted]


def target(page: Path, link: Link) -> Path:
    """Return the file that a link of a page leads to."""
    return (page.parent / link.path).resolve() if link.path else page

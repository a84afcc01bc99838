"""The documentation hangs together: its links lead somewhere, its pages are found, and it names what there is."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from documentation import DOCS, GUIDES, INDEX, PAGES, README, TASKS, anchors, blocks, code_spans, links, prose, target
from scored import scored

from finetune import errors
from finetune.config.compose import conf_dir
from finetune.evaluation.bootstrap import metrics_document

PACKAGE = Path(errors.__file__).parent
REFERENCE = DOCS / "reference"


def name_of(page: Path) -> str:
    """Return a page as it is called in a test."""
    return page.relative_to(DOCS.parent).as_posix()


def test_readme_can_be_read_at_once() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links(page):
        file = target(page, link)
        if not file.exists() or (link.anchor and link.anchor not in anchors(file)):
            broken.append(f"{link.path}#{link.anchor}")
    assert not broken


def test_every_page_is_reached_from_the_index() -> None:
    reached, waiting = {INDEX}, [INDEX]
    while waiting:
        page = waiting.pop()
        found = {target(page, link) for link in links(page)}
        new = {file for file in found if file.suffix == ".md" and file.exists()} - reached
        reached |= new
        waiting += new
    assert set(GUIDES) <= reached | {README}


def test_readme_names_every_task() -> None:
    named = {target(README, link) for link in links(README)}
    assert set(TASKS) <= named


@pytest.mark.parametrize("page", [INDEX, *TASKS], ids=name_of)
def test_page_begins_with_a_command(page: Path) -> None:
    before, fence, _ = page.read_text().partition("```bash\n")
    assert fence
    assert len([part for part in before.split("\n\n") if part.strip() and not part.startswith("#")]) < 3


@pytest.mark.parametrize("page", [page for page in PAGES if page != REFERENCE / "configuration.md"], ids=name_of)
def test_lines_are_wrapped(page: Path) -> None:
    long = [line for line in prose(page).splitlines() if len(line) > 120 and not line.startswith("|")]
    assert not long


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_fences_are_closed_and_known(page: Path) -> None:
    fences = re.findall(r"^```(\w*)", page.read_text(), re.M)
    assert len(fences) == 2 * len(blocks(page))
    assert {block.language for block in blocks(page)} <= {"bash", "console", "python", "yaml", ""}


def test_contributing_has_a_line_for_each_folder_of_the_package() -> None:
    text = (DOCS.parent / "CONTRIBUTING.md").read_text()
    folders = [file.parent.relative_to(PACKAGE).as_posix() for file in PACKAGE.glob("*/**/__init__.py")]
    assert [folder for folder in folders if f"`{folder}/" not in text] == []


def test_glossary_says_where_terms_are_at_home() -> None:
    text = (DOCS.parent / "CONTRIBUTING.md").read_text().partition("## Glossary")[2].partition("\n## ")[0]
    places = [place for row in re.findall(r"^\|.*\|.*\|(.*)\|$", text, re.M) for place in re.findall(r"`([^`]+)`", row)]
    assert len(places) > 20
    assert [place for place in places if not any((PACKAGE / name).exists() for name in (place, f"{place}.py"))] == []


def test_every_option_is_named_in_the_docs() -> None:
    code = [text for page in GUIDES for text in (*code_spans(page), *(block.text for block in blocks(page)))]
    words = {word for text in code for word in re.split(r"[=,|\[\]\s]", text)}
    groups = [folder for folder in conf_dir().iterdir() if folder.is_dir() and folder.name != "hydra"]
    options = {file.stem for group in groups for file in group.glob("*.yaml") if not file.stem.startswith("_")}
    assert sorted(options - words) == []
    assert sorted({group.name for group in groups} - words) == []


def test_reference_names_every_command() -> None:
    text = (REFERENCE / "commands.md").read_text()
    names = {file.stem for file in conf_dir().glob("*.yaml") if not file.stem.startswith("_")}
    assert [name for name in sorted(names) if f"finetune {name}`" not in text] == []


def test_reference_names_every_kind_of_error() -> None:
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert [name for name in kinds if name not in (REFERENCE / "errors.md").read_text()] == []


def test_reference_names_every_variable_that_is_read() -> None:
    asked = re.compile(r"""(?:environ\.get\(|environ\[|= |\(|oc\.env:)["']?([A-Z][A-Z_]{3,}_[A-Z_]+)["',\]]""")
    sources = [*PACKAGE.rglob("*.py"), *conf_dir().rglob("*.yaml")]
    text = "\n".join(file.read_text() for file in sources)
    prefixes = ("FINETUNE_", "WANDB_", "XDG_", "OMP_", "MALLOC_", "CUDA_", "HYDRA_")
    names = {name for name in asked.findall(text) if name.startswith(prefixes)} - {"WANDB_SERVICE"}
    assert {"FINETUNE_CORES", "FINETUNE_TRIAL", "WANDB_MODE", "XDG_CACHE_HOME"} <= names
    assert [name for name in sorted(names) if name not in (REFERENCE / "environment.md").read_text()] == []


def test_reference_names_every_score_and_column_of_a_run(tmp_path: Path) -> None:
    spans = set(code_spans(REFERENCE / "run_folder.md"))
    for predictions in (scored(40, 7), scored(40, 3, multilabel=True)):
        document = metrics_document({"test": predictions}, resamples=0)
        scores = {name for name in document["test"] if not name.startswith(("precision_", "recall_", "f1_"))}
        assert scores <= spans
        assert {name for name in document["per_class"]["test"][0] if not name.endswith(("_low", "_high"))} <= spans
        predictions.save(tmp_path / "test.parquet")
        columns = pq.read_schema(tmp_path / "test.parquet").names
        assert {name for name in columns if not name.startswith("probability/")} <= spans

"""The documentation against the program: what can be named is named, what is named is there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
OPERATIONS = ROOT / "docs" / "operations.md"
API = ROOT / "docs" / "api.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LAYERS = ("learners", "streams", "serving")

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]*)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def in_code(path: Path) -> set[str]:
    """Everything between single backquotes on a page."""
    return set(re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(path))))


def missing(names: set[str], page: Path) -> list[str]:
    return sorted(names - in_code(page))


def anchors(path: Path) -> set[str]:
    titles = HEADING.findall(FENCE.sub("", text_of(path)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(command: Any, path: tuple[str, ...] = ("everlearn",)) -> Iterator[str]:
    """Every command that can be run, with its groups: `everlearn topics create`."""
    if not hasattr(command, "commands"):
        yield " ".join(path)
        return
    for name, inner in command.commands.items():
        if not inner.hidden:
            yield from commands(inner, (*path, name))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", text_of(page))):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name_of(page)} links to {link}"


def test_the_readme_is_the_index_of_every_page() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall(text_of(README))}
    assert {name_of(page) for page in PAGES if page != README} <= linked


def test_every_setting_is_in_the_operations_page() -> None:
    from streams.settings import OTHER_VARIABLES, Settings, TopicSettings, describe

    names = {setting.name for setting in describe(Settings())}
    plain = {name for name in names if not name.startswith("topics.")}
    assert not missing(plain | set(TopicSettings.model_fields) | set(OTHER_VARIABLES), OPERATIONS)


def test_every_topic_is_in_the_operations_page_with_what_is_kept() -> None:
    from streams.settings import Settings

    for role, topic in Settings().topics.items():
        days = topic.retention_days
        kept = "for ever" if days < 0 else f"{days:g} days"
        compacted = ", compacted" if topic.compacted else ""
        assert f"| `{role}` | `{topic.name}` | {kept}{compacted} |" in text_of(OPERATIONS)


def test_every_reason_of_a_dead_letter_is_in_the_operations_page() -> None:
    from streams.decode import REASONS

    assert not missing(set(REASONS), OPERATIONS)


def test_every_command_is_in_the_readme() -> None:
    import typer

    from serving.cli import app

    assert not missing(set(commands(typer.main.get_command(app))), README)


def test_every_make_target_is_in_the_readme() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = {line.split()[1] for line in listed.stdout.splitlines()}
    assert targets >= {"setup", "demo", "test", "check", "bench", "kafka"}
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text_of(README), re.MULTILINE))
    assert named == targets


def test_every_route_is_in_the_api_page() -> None:
    from serving.api import make_api
    from streams.settings import Settings

    nobody = cast(Any, None)  # no request is made
    document = make_api(nobody, nobody, Settings(), nobody).openapi()
    routes = {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item
    }
    assert "GET /recommend/{user}" in routes
    assert not missing(routes, API)


def test_every_code_of_a_failure_is_in_the_api_page() -> None:
    from serving.web.errors import CODES

    source = "".join(text_of(path) for path in (ROOT / "serving").rglob("*.py"))
    own = set(re.findall(r'\bcode="(\w+)"', source))
    assert own >= {"unknown_user", "not_acknowledged"}
    assert not missing(own | set(CODES.values()), API)


def test_every_metric_is_in_the_operations_page() -> None:
    from learners.base import EngineConfig
    from learners.engine import Engine
    from serving.metrics import Metrics

    class Idle:
        def ready(self) -> dict[str, Any]:
            return {"ready": True, "reasons": [], "lag": 0, "last_checkpoint": 1.0}

    engine = Engine(EngineConfig(users=64, items=64, sessions=64, dedupe_events=64))
    page = Metrics(engine, cast(Any, Idle())).page().decode()
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE))
    assert kinds
    assert not missing(set(kinds), OPERATIONS)


def test_every_metric_of_the_trainer_is_in_the_operations_page() -> None:
    from serving.training import TrainerMetrics

    metrics = TrainerMetrics()
    metrics.lag = 0
    kinds = set(re.findall(r"^# TYPE (\w+) \w+$", metrics.page().decode(), re.MULTILINE))
    assert len(kinds) == 6
    assert not missing(kinds, OPERATIONS)


def test_the_readme_ends_in_the_tree_of_files() -> None:
    tree = FENCE.findall(text_of(README))[-1]
    words = set(re.findall(r"[\w.-]+", tree))
    modules = [
        path.relative_to(ROOT)
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*.py")
        if not path.stem.startswith("__")
    ]
    unnamed = [path.as_posix() for path in modules if path.stem not in words]
    assert not unnamed, "name them in the README's tree"
    folders = {path.parts[0] for path in modules} | {"benchmarks", "docs", "tests"}
    assert {f"{folder}/" for folder in folders} <= set(re.findall(r"\w+/", tree))
    named = {word for word in words if (ROOT / word).suffix in {".md", ".txt", ".toml", ".yml"}}
    assert all(list(ROOT.glob(f"**/{word}")) for word in named), "the tree names a missing file"


def test_every_entry_of_the_log_is_dated_and_the_newest_stands_first() -> None:
    titles = re.findall(r"^## (.*)$", text_of(ROOT / "docs" / "log.md"), re.MULTILINE)
    dates = [re.match(r"(\d{4}-\d\d-\d\d) · \S", title) for title in titles]
    assert all(dates), titles
    days = [date[1] for date in dates if date]
    assert days == sorted(days, reverse=True)

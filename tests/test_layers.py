"""The layers, sizes and habits of the code, read from its syntax trees without importing it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("learners", "streams", "serving")  # each may import itself and those before it
FOLDERS = (*LAYERS, "benchmarks", "tests")
MODULES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.is_file()
)
PACKAGED = [path for path in MODULES if path.relative_to(ROOT).parts[0] in LAYERS]
LEARNERS = [path for path in PACKAGED if path.relative_to(ROOT).parts[0] == "learners"]

WORLD = {
    *("aiokafka", "confluent_kafka", "faust", "kafka", "mode"),
    *("fastapi", "httpx", "prometheus_client", "requests", "starlette", "uvicorn"),
    *("aiohttp", "asyncio", "http", "selectors", "socket", "socketserver", "ssl", "urllib"),
    *("calendar", "datetime", "time", "zoneinfo"),
    *("pydantic", "pydantic_settings", "rich", "structlog", "typer"),
}
DISK = {"fileinput", "glob", "io", "os", "pathlib", "safetensors", "shutil", "sqlite3", "tempfile"}
DISK_CALLS = {"open", "fromfile", "load", "loadtxt", "memmap", "save", "savetxt", "savez", "tofile"}
ON_DISK = {
    "checkpoint.py",
    "durable.py",
    "registry.py",
    "snapshots.py",
    "jit.py",
}  # jit: compiled kernels, no state
UNSAFE = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
VAGUE = {"common.py", "helpers.py", "misc.py", "utils.py"}
SLOW_TO_IMPORT = {
    *("aiokafka", "confluent_kafka", "fastapi", "faust", "kafka", "matplotlib", "numba", "numpy"),
    *("polars", "river", "scipy", "torch"),
}
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    """The module as others import it: without what it does when it is run as a program."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=name_of(path))
    tree.body = [node for node in tree.body if not is_main_guard(node)]
    return tree


def is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def imports(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Every imported module with its line, those inside functions and relative ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield ".".join((*base, *filter(None, [node.module]))), node.lineno


def imported_by(path: Path) -> list[tuple[str, int]]:
    return list(imports(parse(path), path.relative_to(ROOT).parts[:-1]))


def forbidden(path: Path, roots: set[str]) -> list[str]:
    return [
        f"{name_of(path)}:{line} imports {module}"
        for module, line in imported_by(path)
        if module.split(".")[0] in roots
    ]


@pytest.mark.parametrize("path", PACKAGED, ids=name_of)
def test_a_module_imports_its_own_layer_or_one_below(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    above = {*LAYERS[LAYERS.index(layer) + 1 :], "benchmarks", "tests"}
    assert not forbidden(path, above), "layers are serving -> streams -> learners, never back"


@pytest.mark.parametrize("path", PACKAGED, ids=name_of)
def test_nothing_is_pickled(path: Path) -> None:
    assert not forbidden(path, UNSAFE), "a file of state must not be able to run code"


@pytest.mark.parametrize("path", LEARNERS, ids=name_of)
def test_the_learner_knows_no_kafka_web_loop_or_clock(path: Path) -> None:
    assert not forbidden(path, WORLD), "learners are pure: time is event time, input is a batch"


@pytest.mark.parametrize("path", [p for p in LEARNERS if p.name not in ON_DISK], ids=name_of)
def test_the_learner_touches_no_disk_outside_its_checkpoints(path: Path) -> None:
    calls = [
        f"{name_of(path)}:{node.lineno} calls {called}()"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and (called := called_on_disk(node.func))
    ]
    assert not forbidden(path, DISK) + calls, f"disk belongs in {sorted(ON_DISK)}"


def called_on_disk(function: ast.expr) -> str:
    """Name the disk call: the builtin `open`, or numpy's readers and writers."""
    if isinstance(function, ast.Name):
        return function.id if function.id == "open" else ""
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        numpy = function.value.id in {"np", "numpy"} or function.attr in {"tofile", "open"}
        return function.attr if numpy and function.attr in DISK_CALLS else ""
    return ""


@pytest.mark.parametrize("path", PACKAGED, ids=name_of)
def test_a_module_says_what_is_public(path: Path) -> None:
    tree = parse(path)
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    if any(isinstance(node, definitions) for node in tree.body):
        assigned = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert "__all__" in assigned, f"{name_of(path)} has no __all__"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{name_of(path)} has {lines} lines: split it by job"
    long = [
        f"{name_of(path)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert not long
    assert path.name not in VAGUE, f"{name_of(path)}: name the file after its job"


def test_help_imports_nothing_slow() -> None:
    """`everlearn --help` answers at once because commands import what they use when they run."""
    code = "import sys, serving.cli; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not SLOW_TO_IMPORT & set(run.stdout.split())

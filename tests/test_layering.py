"""Imports point one way, as docs/architecture.md draws them."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "intsmooth"

# What the modules of a part may import from the package, beside themselves. A part is a module or a folder.
STATISTICS = {"errors", "records", "enclosure", "normal", "theorem", "binomial"}
ALLOWED = {
    "errors": set(),
    "records": set(),
    "fixedpoint": {"errors"},
    "reference": {"errors", "records"},
    "kernels": {"errors"},
    "noise": {"errors", "records", "kernels", "reference", "enclosure"},
    "ops": {"errors", "records", "fixedpoint"},
    "overflow": {"errors", "records", "ops"},
    "lowering": {"errors", "records", "fixedpoint", "kernels"},
    "plan": {"errors", "records", "kernels", "lowering", "overflow"},
    "engine": {"errors", "records", "kernels", "reference", "noise", "overflow", "plan", "lowering"},
    "certify": STATISTICS,
    "report": STATISTICS | {"certify"},
    "outcome": {"errors"},
    "executors": {"errors", "engine"},
    "tasks": {"errors", "records", "vote", "sampling", "smooth", "__version__"},
    "workers": {"errors", "executors", "tasks"},
    "dispatch": {"errors", "records", "tasks", "workers"},
}


def imports(path: pathlib.Path) -> set[str]:
    """Parts of the package that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                here = ("intsmooth", *path.relative_to(PACKAGE).parent.parts)
                base = here[:len(here) - node.level + 1]
                names = [*base[1:], *(node.module or "").split(".")] if node.module else list(base[1:])
                names = [name for name in names if name] or [alias.name for alias in node.names]
                found.add(names[0])
            elif node.module and node.module.split(".")[0] == "intsmooth":
                parts = node.module.split(".")[1:]
                found.update([parts[0]] if parts else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("intsmooth."))
    return found


def files(part: str) -> list[pathlib.Path]:
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_one_way(part):
    for path in files(part):
        assert imports(path) - {part} <= ALLOWED[part], f"{path.relative_to(PACKAGE)} imports what it must not"


def test_nothing_imports_the_command_line():
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] not in ("cli.py", "commands", "__main__.py"):
            assert not imports(path) & {"cli", "commands"}, path


def test_modules_stay_small():
    sizes = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: size for name, size in sizes.items() if size > 350} == {}

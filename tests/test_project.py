"""What the project promises about itself: the wheel, the scripts, the crash points, the words in its files."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
import zipfile
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tapefs", "sidecar", "drivers", "catalog")


def tracked() -> list[Path]:
    """Return the files of the project, without what was built or is ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("not a git work tree")
    return [path for name in listed.stdout.split(b"\0") if name and (path := ROOT / os.fsdecode(name)).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_the_wheel_holds_every_module(wheel):
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {name for name in wheel.namelist() if name.endswith(".py")} == modules


def test_the_wheel_brings_the_command_and_the_licence(wheel):
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "tapefs = tapefs.__main__:main" in wheel.read(entry_points).decode()
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


@pytest.mark.parametrize("package", PACKAGES)
def test_each_name_belongs_to_this_distribution_alone(package):
    """The names are generic: another distribution's `drivers` in the same environment would shadow ours."""
    assert set(packages_distributions().get(package, ["tapefs"])) == {"tapefs"}
    module = importlib.import_module(package)
    assert Path(module.__file__ or "").is_relative_to(ROOT)


def _normal(name):
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_imported_at_run_time_is_required():
    """Every distribution that the packages import is named in pyproject.toml."""
    required = {
        _normal(re.split(r"[\s\[<>=;~!]", line)[0])
        for line in distribution("tapefs").requires or []
        if "extra ==" not in line
    }
    owners = packages_distributions()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for name in re.findall(r"^\s*(?:import|from) ([a-z_0-9]+)", path.read_text(), re.MULTILINE):
            if name not in sys.stdlib_module_names and name not in PACKAGES and name in owners:
                assert {_normal(owner) for owner in owners[name]} & required, f"{path.name} imports {name}"


@pytest.mark.parametrize("name", ["setup", "quickstart", "test", "check", "fix", "bench", "lock"])
def test_scripts_are_executable(name):
    script = ROOT / "scripts" / name
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env ")


def test_shell_scripts_parse():
    for script in [*(ROOT / "scripts").iterdir(), ROOT / ".ci/run"]:
        if script.is_file() and "bash" in script.read_text().splitlines()[0]:
            subprocess.run(["bash", "-n", str(script)], check=True)


def test_crash_points_are_unique_and_documented():
    """Every named crash point is explained in docs/, so that an operator knows what a crash there leaves."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            importlib.import_module(module.name)
    from catalog.crash import known_points

    documents = "\n".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    # Each operation of the ledger has a pair of points, explained once for all.
    explained = {re.sub(r"^ledger\.\w+\.", "ledger.OPERATION.", name): name for name in known_points()}
    missing = sorted(name for general, name in explained.items() if f"`{general}`" not in documents)
    assert not missing


def test_no_module_is_too_long():
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        assert len(path.read_text().splitlines()) <= 600, f"split {path.relative_to(ROOT)}"


def test_no_file_names_a_registry():
    """An install takes the index that the machine is set up for; files that name one break where it is another."""
    host = re.compile("|".join(("pypi" + r"\.org", "python" + r"hosted", "--(extra-)?index-url" + " ")))
    for path in tracked():
        if path.suffix in (".md", ".toml", ".lock", ".py", "") and path.name != "LICENSE":
            assert not host.search(path.read_text(errors="replace")), path


def test_locks_pin_every_package_with_its_hashes():
    for name in ("requirements.lock", "requirements-build.lock"):
        text = (ROOT / name).read_text()
        pins = re.findall(r"^[a-z][^\n]*\\$(?:\n +--hash=sha256:[0-9a-f]{64}(?: \\)?$)+", text, re.MULTILINE)
        lines = [line for line in text.splitlines() if line and line[0] not in " #"]
        assert len(pins) == len(lines) > 0
        assert all("==" in line for line in lines)


def test_the_folder_holds_what_belongs_there():
    """A program that was tried with a relative path leaves its files here, and a commit takes them along."""
    known = {
        ".ci", ".gitignore", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "catalog",
        "changelog", "docs", "drivers", "pyproject.toml", "requirements-build.lock", "requirements.lock", "scripts",
        "sidecar", "tapefs", "tests",
    }  # fmt: skip
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} == known


def test_links_in_documents_lead_somewhere():
    for path in tracked():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"

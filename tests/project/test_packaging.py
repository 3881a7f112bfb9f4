"""What is published: a wheel and an sdist, the same each time, with all that README.md names."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

import trio_ws
from tests.project.pages import ROOT
from tests.setup.oldest import oldest


def build(directory: Path) -> tuple[Path, Path]:
    """Build what is published. Gives the paths of the wheel and the sdist."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(directory)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    (sdist,) = directory.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("built"))


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_building_twice_gives_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    for first, second in zip(built, build(tmp_path), strict=True):
        assert (
            hashlib.sha256(first.read_bytes()).digest()
            == hashlib.sha256(second.read_bytes()).digest()
        )


def test_links_of_the_readme_work_on_a_package_index(built: tuple[Path, Path]) -> None:
    readme = str(metadata_of(built[0]).get_payload())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    own = [link for link in re.findall(r"\]\(([^)]*)\)", readme) if "trio.readthedocs" not in link]
    assert len(own) > 20
    assert [link for link in own if not link.startswith(f"{project['urls']['Source']}/")] == []


def test_the_sdist_has_all_that_the_readme_names(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    readme = (ROOT / "README.md").read_text("utf-8")
    linked = [link for link in re.findall(r"\]\(([^)#]*)", readme) if "://" not in link]
    assert {
        *linked,
        "Makefile",
        "LICENSE",
        "README.md",
        ".ci/run",
        "tests/conftest.py",
        "tests/minimal/alone.py",
    } - names == set()


def test_the_wheel_has_the_package_and_its_types_and_no_tests(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        names = archive.namelist()
    packaged = [
        str(path.relative_to(ROOT)) for path in (ROOT / "trio_ws").rglob("*") if path.is_file()
    ]
    assert [name for name in packaged if "__pycache__" not in name and name not in names] == []
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "trio_ws",
        "_trio_ws_pytest.py",
        "_trio_ws_script.py",
    }


# What is said about the release…


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def test_all_that_names_the_version_names_this_one() -> None:
    major_and_minor = trio_ws.__version__.rpartition(".")[0]
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(trio_ws.__version__)} – \d{{4}}-\d\d-\d\d", headings[1])
    assert f"| trio_ws {major_and_minor} |" in (ROOT / "README.md").read_text("utf-8")
    assert f"| {major_and_minor} | yes |" in (ROOT / "SECURITY.md").read_text("utf-8")


def test_each_python_that_is_claimed_is_tried() -> None:
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(project()["classifiers"]))
    workflow = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    (matrix,) = re.findall(r"python: \[(.*)\]", workflow)
    assert ["3.11", *re.findall(r"[\d.]+", matrix)] == claimed
    assert "container: python:3.11-" in workflow
    page = (ROOT / "docs/reference/versions.md").read_text("utf-8")
    assert f"CPython {claimed[0]} to {claimed[-1]}," in page


def test_the_page_of_versions_has_every_lower_bound() -> None:
    page = (ROOT / "docs/reference/versions.md").read_text("utf-8")
    rows = re.findall(
        r"^\| ([\w-]+) \| ([\d.]+) \| (?:always|the extra `(\w+)`) \|$", page, re.MULTILINE
    )
    wanted = [("", each) for each in project()["dependencies"]]
    for extra, requirements in project()["optional-dependencies"].items():
        wanted += [(extra, each) for each in requirements]
    assert [(extra, f"{name}>={bound}") for name, bound, extra in rows] == wanted
    assert oldest() == [each.replace(">=", "==") for _, each in wanted]


def test_the_suite_asks_for_no_other_versions_of_extras_than_users_get() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    extras = [each for group in project()["optional-dependencies"].values() for each in group]
    assert [each for each in extras if each not in groups["test"]] == []

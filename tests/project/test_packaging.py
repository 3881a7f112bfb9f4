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

import pytest

from tests.project.pages import ROOT


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
    assert {*linked, "Makefile", "LICENSE", ".ci/run", "tests/conftest.py"} - names == set()


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
    }

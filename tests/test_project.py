"""The project's own files agree with one another: versions, links, environments, and what a newcomer is told."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import notebooks
import pytest
import yaml
from built_pages import foreign_addresses
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
BOOK_CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
SLUG = BOOK_CONFIG["repository"]["url"].removeprefix("https://github.com/")
TAG = BOOK_CONFIG["repository"]["branch"]


def tracked_texts() -> dict[str, str]:
    """Every text file that git knows, by its path."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    if not names:
        pytest.skip("not a git checkout")
    texts = {}
    for name in names:
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            texts[name] = content.decode("utf-8")
    return texts


def pinned() -> dict[str, list[Version]]:
    pins: dict[str, list[Version]] = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        requirement = Requirement(line)
        version = next(iter(requirement.specifier)).version
        pins.setdefault(canonicalize_name(requirement.name), []).append(Version(version))
    return pins


def declared() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    return [
        Requirement(text) for text in (*PROJECT["dependencies"], *(text for extra in extras.values() for text in extra))
    ]


def test_every_declared_package_is_pinned_within_its_bounds() -> None:
    pins = pinned()
    for requirement in declared():
        versions = pins.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement.name} is missing from constraints.txt"
        assert all(version in requirement.specifier for version in versions), requirement


def test_the_library_itself_leaves_room_for_the_torch_and_numpy_of_colab() -> None:
    for text in PROJECT["dependencies"]:
        operators = {specifier.operator for specifier in Requirement(text).specifier}
        assert operators <= {">="}, f"{text} would replace what Colab brings"


def test_conda_users_get_the_same_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python="))
    assert Version(python.split("=")[1] + ".0") in Requirement(f"x{PROJECT['requires-python']}").specifier
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert "--constraint constraints.txt" in pip
    (project,) = (line for line in pip if line.startswith("--editable"))
    extras = set(re.search(r"\[(.*)\]", project)[1].split(","))  # type: ignore[index]
    assert extras == set(PROJECT["optional-dependencies"])


def test_the_installed_packages_are_the_pinned_ones() -> None:
    from importlib import metadata

    pins = pinned()
    for requirement in declared():
        installed = Version(metadata.version(requirement.name)).public
        assert Version(installed) in pins[canonicalize_name(requirement.name)], requirement.name


def test_the_release_is_the_same_everywhere() -> None:
    import lessons_lib

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert f"v{PROJECT['version']}" == TAG
    assert lessons_lib.__version__ == citation["version"] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_every_link_of_our_own_has_the_slug_and_the_tag_of_the_config() -> None:
    published = BOOK_CONFIG["html"]["baseurl"]
    texts = {name: text for name, text in tracked_texts().items() if not name.startswith("tests/")}
    wrong = {name: found for name, text in texts.items() if (found := foreign_addresses(text, SLUG, TAG, published))}
    assert wrong == {}
    assert SLUG.split("/")[0] in published
    assert published.endswith(f"/{SLUG.split('/')[1]}/")
    for name in ("README.md", "CITATION.cff", "pyproject.toml", "book/00_start.ipynb"):
        assert SLUG in texts[name] or published in texts[name], f"{name} does not say where the project is"


def test_no_package_registry_and_no_path_of_a_developers_machine_is_named() -> None:
    registries = ("py" + "pi.org", "python" + "hosted", "registry." + "npmjs", "deb." + "debian")
    found = [
        (name, word) for name, text in tracked_texts().items() for word in (*registries, "/ro" + "ot/") if word in text
    ]
    assert found == []


@pytest.mark.parametrize(
    "target", ["book", "pdf", "test", "slow", "lab", "figures", "student", "bench", "oracles", "clean", "help"]
)
def test_make_help_names_every_command(target: str) -> None:
    told = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^  make {target}\s", told, re.M)


def test_importing_the_package_is_quick_because_torch_waits() -> None:
    heavy = ("torch", "torchvision", "numpy", "matplotlib")
    code = f"import lessons_lib, sys; print([m for m in {heavy} if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_imports_run_one_way() -> None:
    """Ground floor, then methods, then plots, then exercises: nobody imports from a floor above."""
    floors = [
        {
            "_checks",
            "augmentation",
            "datasets",
            "downloads",
            "hooks",
            "pixel_gradient",
            "resnet",
            "shapes",
            "squeezenet",
            "cifar10",
            "specimens",
            "targets",
        },
        {
            *("filters", "activations", "maximization", "_local_change", "saliency", "gradcam", "fooling"),
            *(
                "optimizers",
                "surfaces",
                "learning_rates",
                "landscape",
                "recipes",
                "training",
                "mistakes",
                "comparisons",
            ),
            *("trust", "league", "capstone"),
        },
        {"plots", "interactive"},
        {"exercises"},
    ]
    floor_of = {name: level for level, names in enumerate(floors) for name in names}
    library = ROOT / "lessons_lib"

    def module_of(path: Path) -> str:
        return path.relative_to(library).with_suffix("").parts[0]

    for path in library.rglob("*.py"):
        if path == library / "__init__.py":
            continue
        assert module_of(path) in floor_of, f"{path.name} has no floor: give it one in this test"
        for imported in notebooks._imported(path.read_text("utf-8"), library, path.parent):
            assert floor_of[module_of(imported)] <= floor_of[module_of(path)], f"{path.name} imports {imported.name}"


def test_no_module_imports_itself_in_a_circle() -> None:
    library = ROOT / "lessons_lib"
    for path in library.rglob("*.py"):
        direct = notebooks._imported(path.read_text("utf-8"), library, path.parent)
        assert all(path not in notebooks._reached(found.read_text("utf-8"), library) for found in direct), path.name

"""Settings: where they come from, what wins, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnlint.assumptions import Versions
from bnlint.config import Selection, Settings, load_settings
from bnlint.errors import UsageError

CODES = ("BNL001", "BNL002", "BNL101", "BNL107", "ACM001")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, directory: str = ".") -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    Path(directory, "pyproject.toml").write_text(text, encoding="utf-8")


def enabled(*selections: Selection, off: tuple[str, ...] = ("BNL107",)) -> list[str]:
    settings = Settings("", selections)
    return [code for code in CODES if settings.enabled(code, default=code not in off)]


def test_without_settings_the_defaults_hold(project: Path) -> None:
    assert load_settings(".") == Settings(str(project))
    assert enabled() == ["BNL001", "BNL002", "BNL101", "ACM001"]


def test_all_settings_are_read(project: Path) -> None:
    write(
        """
        [tool.bnlint]
        select = ["BNL0"]
        extend-select = ["BNL107"]
        ignore = ["BNL002"]
        exclude = ["vendor/"]
        extend-exclude = ["gen_*.py"]
        format = "json"
        device = "cpu"
        """
    )
    assert load_settings(".") == Settings(
        root=str(project),
        selections=(Selection(("BNL0",), ("BNL107",), ("BNL002",), "pyproject.toml: [tool.bnlint] "),),
        exclude=("vendor/",),
        extend_exclude=("gen_*.py",),
        format="json",
        device="cpu",
    )


def test_the_nearest_file_that_has_settings_counts(project: Path) -> None:
    write('[tool.bnlint]\nformat = "json"')
    write('[tool.other]\nformat = "x"', "pkg")
    write("[tool.bnlint]", "pkg/inner/deep")
    own = "pyproject.toml: [tool.bnlint] "
    assert load_settings("pkg/inner") == Settings(str(project), (Selection(source=own),), format="json")
    assert load_settings("pkg/inner/deep").format == "text"


def test_the_project_is_the_nearest_pyproject_or_repository(project: Path) -> None:
    Path("repo/.git").mkdir(parents=True)
    Path("repo/a").mkdir()
    write("[project]", "repo/pkg")
    assert load_settings("repo/a").root == str(project / "repo")
    assert load_settings("repo/pkg").root == str(project / "repo/pkg")


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(select=("BNL1",)), ["BNL101", "BNL107"]),
        (Selection(select=("BNL001", "ACM")), ["BNL001", "ACM001"]),
        (Selection(extend_select=("BNL107",)), ["BNL001", "BNL002", "BNL101", "BNL107", "ACM001"]),
        (Selection(ignore=("BNL",)), ["ACM001"]),
        (Selection(select=("BNL",), ignore=("BNL1",)), ["BNL001", "BNL002"]),
        (Selection(select=("BNL107",), ignore=("BNL1",)), ["BNL107"]),
        (Selection(extend_select=("BNL001",), ignore=("BNL",)), ["BNL001", "ACM001"]),
        (Selection(select=("BNL001",), ignore=("BNL001",)), []),
        (Selection(select=()), []),
    ],
)
def test_the_longest_prefix_decides(selection: Selection, expected: list[str]) -> None:
    assert enabled(selection) == expected


def test_a_later_source_decides_over_an_earlier_one() -> None:
    file = Selection(extend_select=("BNL107",), ignore=("BNL001",))
    assert enabled(file, Selection()) == ["BNL002", "BNL101", "BNL107", "ACM001"]
    assert enabled(file, Selection(extend_select=("BNL0",))) == [
        "BNL001",
        "BNL002",
        "BNL101",
        "BNL107",
        "ACM001",
    ]
    assert enabled(file, Selection(select=("BNL0",))) == ["BNL001", "BNL002"]
    assert enabled(file, Selection(ignore=("BNL1",))) == ["BNL002", "ACM001"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[tool.bnlint]\nselct = ["BNL"]', "[tool.bnlint] selct: unknown key; did you mean 'select'?"),
        ("[tool.bnlint]\nzzz = 1", "zzz: unknown key; known are select, ignore"),
        (
            '[tool.bnlint]\nselect = ["BNL1O1"]',
            "select: no rule has the code or prefix 'BNL1O1'; did you mean 'BNL101'?",
        ),
        (
            '[tool.bnlint]\nignore = ["QQ"]',
            "ignore: no rule has the code or prefix 'QQ'; see bnlint --list-rules",
        ),
        ('[tool.bnlint]\nignore = ["BNL900"]', "no rule has the code or prefix 'BNL900'"),
        ('[tool.bnlint]\nextend-select = [""]', "extend-select: no rule has the code or prefix ''"),
        ('[tool.bnlint]\nselect = "BNL"', "select: must be a list of strings"),
        ("[tool.bnlint]\nexclude = [1]", "exclude: must be a list of strings"),
        ('[tool.bnlint]\nexclude = ["!"]', "exclude: '!' is no valid pattern"),
        ('[tool.bnlint]\nformat = "jsn"', "format: 'jsn' is none of text, json"),
        ("[tool.bnlint]\ndevice = 3", "device: 3 is none of auto, cpu, cuda, mps"),
        ("[tool.bnlint]\ndevice = []", "device: [] is none of auto, cpu, cuda, mps"),
        ("[tool]\nbnlint = 1", "tool.bnlint must be a table"),
        ("[tool.bnlint", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, message: str) -> None:
    write(text)
    with pytest.raises(UsageError) as raised:
        load_settings(".").check(CODES)
    assert str(raised.value).startswith("pyproject.toml: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_text_is_named() -> None:
    Path("pyproject.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"^pyproject\.toml: not valid TOML"):
        load_settings(".")


def test_a_file_that_does_not_name_bnlint_is_none_of_its_business(project: Path) -> None:
    write("[tool.ruff", "pkg")
    assert load_settings("pkg") == Settings(str(project / "pkg"))


@pytest.mark.parametrize(
    ("least", "shown"),
    [
        ("certain", ["certain"]),
        ("likely", ["certain", "likely"]),
        ("possible", ["certain", "likely", "possible"]),
    ],
)
def test_what_is_less_sure_than_asked_for_is_not_shown(least: str, shown: list[str]) -> None:
    settings = Settings(root="", min_confidence=least)
    assert [one for one in ("certain", "likely", "possible") if settings.shows(one)] == shown


def test_versions_are_taken_from_the_settings_before_the_requirements(project: Path) -> None:
    Path("requirements.txt").write_text("keras<3\ntorch==2.1\n")
    write('[tool.bnlint]\nkeras-version = "3.15"\nkeras-backend = "jax"\n')
    assumed = load_settings(".").assumptions()
    assert assumed.keras == Versions((3, 15), (3, 16), "the setting keras-version")
    assert assumed.torch == Versions((2, 1), (2, 2), "requirements.txt")
    assert assumed.keras_backend == "jax"


@pytest.mark.parametrize("line", ['keras-version = "three"', "torch-version = 2", 'keras-backend = "numpy"'])
def test_a_wrong_version_or_backend_is_named(line: str) -> None:
    write(f"[tool.bnlint]\n{line}\n")
    with pytest.raises(UsageError, match=line.split(" ")[0]):
        load_settings(".")

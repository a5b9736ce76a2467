"""Things known by name, with real entry points of distributions that lie in a temporary folder."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prunec.passes.errors import InputError, MissingDependencyError, UsageError
from prunec.passes.plugins import Catalogue, PlugIn, plug_ins

GROUP = "prunec.test_things"
CATALOGUE = Catalogue("thing", GROUP, {"plain": "prunec.passes.unknown:Unknown", "other": "no.such.module:Thing"})
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Makes an installed distribution of entry points and of the source of one module."""
    monkeypatch.syspath_prepend(tmp_path)
    plug_ins.cache_clear()

    def make(package: str, entry_points: dict[str, str], source: str = "") -> None:
        info = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {location}" for name, location in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
        (tmp_path / f"{package.replace('-', '_')}.py").write_text(source)

    yield make
    plug_ins.cache_clear()
    for module in {"plug_one", "plug_two", "broken"} & sys.modules.keys():
        del sys.modules[module]


def test_own_things_need_no_plug_in(install: Install) -> None:
    assert CATALOGUE.names() == ["plain", "other"]
    assert CATALOGUE.load("plain").__name__ == "Unknown"


def test_names_import_nothing_and_load_imports_what_is_asked_for(install: Install) -> None:
    install("plug-one", {"one": "plug_one:One"}, "class One:\n    name = 'one'\n")
    install("plug-two", {"two": "plug_two:Two", "three": "plug_two:Three"}, "class Two: ...\nclass Three: ...\n")
    assert sorted(CATALOGUE.names()) == ["one", "other", "plain", "three", "two"]
    assert CATALOGUE.names()[:2] == ["plain", "other"]
    assert not {"plug_one", "plug_two"} & sys.modules.keys()
    assert CATALOGUE.load("one").name == "one"
    assert "plug_two" not in sys.modules
    assert CATALOGUE.load("three").__name__ == "Three"
    assert PlugIn("one", "plug-one", "plug_one:One") in plug_ins(GROUP)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library\n", "of broken can't be imported from broken:Thing: ModuleNotFoundError"),
        ("raise RuntimeError('out of order')\n", "RuntimeError: out of order"),
        ("raise SystemExit(0)\n", "SystemExit: 0"),
        ("", "AttributeError: module 'broken' has no attribute 'Thing'"),
        ("class Thing:\n    name = 'something-else'\n", "what broken:Thing holds is named 'something-else'"),
    ],
)
def test_a_plug_in_that_fails_costs_its_own_name_only(install: Install, source: str, message: str) -> None:
    install("broken", {"lost": "broken:Thing"}, source)
    install("plug-one", {"one": "plug_one:One"}, "class One: ...\n")
    assert set(CATALOGUE.names()) == {"plain", "other", "lost", "one"}
    assert CATALOGUE.load("one").__name__ == "One"
    assert CATALOGUE.load("plain").__name__ == "Unknown"
    with pytest.raises(MissingDependencyError) as raised:
        CATALOGUE.load("lost")
    assert message in str(raised.value)
    assert "The thing 'lost'" in str(raised.value) or "the thing 'lost'" in str(raised.value)


def test_an_import_failure_of_prunec_itself_is_not_blamed_on_a_package(install: Install) -> None:
    with pytest.raises(ModuleNotFoundError):
        CATALOGUE.load("other")


@pytest.mark.parametrize("taken", ["plain", "one"])
def test_a_name_that_is_taken_twice_is_refused_with_both_packages(install: Install, taken: str) -> None:
    install("plug-one", {"one": "plug_one:One"}, "class One: ...\n")
    install("plug-two", {taken: "plug_two:Two", "two": "plug_two:Two"}, "class Two: ...\n")
    assert sorted(CATALOGUE.names()) == ["one", "other", "plain", "two"]
    with pytest.raises(UsageError) as raised:
        CATALOGUE.load(taken)
    assert all(package in str(raised.value) for package in ("plug-two", "prunec" if taken == "plain" else "plug-one"))
    assert CATALOGUE.load("two").__name__ == "Two"


def test_an_unknown_name_gets_a_suggestion(install: Install) -> None:
    install("plug-one", {"sparkling": "plug_one:One"}, "class One: ...\n")
    with pytest.raises(UsageError, match=r"There is no thing 'sparkler'.\nDid you mean 'sparkling'\?"):
        CATALOGUE.load("sparkler")


@pytest.mark.parametrize("error", [RuntimeError("boom\nmore"), KeyError("k"), SystemExit(0)], ids=repr)
@pytest.mark.parametrize(("name", "package"), [("one", "plug-one"), ("unregistered", "your code")])
def test_errors_of_plug_ins_are_blamed_on_them(install: Install, error: BaseException, name: str, package: str) -> None:
    install("plug-one", {"one": "plug_one:One"}, "class One: ...\n")
    with pytest.raises(UsageError) as raised, CATALOGUE.blame(name):
        raise error
    first = str(error).splitlines()[0]
    assert raised.value.message == f"The thing {name!r} of {package} failed: {type(error).__name__}: {first}"
    assert f"a fault of {package}, not of prunec" in str(raised.value.hint)
    assert raised.value.__cause__ is error
    with pytest.raises(type(error)) as kept, CATALOGUE.blame("plain"):
        raise error
    assert kept.value is error


@pytest.mark.parametrize("error", [InputError("no data."), MemoryError(), KeyboardInterrupt()], ids=repr)
def test_errors_that_are_nobodys_fault_pass(install: Install, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, CATALOGUE.blame("one"):
        raise error
    assert raised.value is error

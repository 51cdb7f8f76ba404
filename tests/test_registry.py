from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ccl_cli import registry
from ccl_cli.errors import PluginError
from tests.helpers.plugin_folder import install, install_broken

TEACHER = "class T:\n    def from_spec(): ...\n    def weight_files(): ...\n"
GOOD = "[ccl.teachers]\ntext.good = good:T\n"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An empty folder at the front of sys.path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return folder


def teachers() -> set[str]:
    return {plugin.name for plugin in registry.plugins(registry.TEACHERS)}


def the_problem() -> str:
    (problem,) = registry.scan().problems
    assert "\n" not in problem
    return problem


def test_a_plugin_is_listed_without_being_imported_and_then_loaded(site):
    install(site, "my_text", "[ccl.teachers]\ntext.bert = text_mod:T\n", modules={"text_mod": TEACHER})
    plugin = registry.find(registry.TEACHERS, "text:bert")
    assert (plugin.label, plugin.origin, plugin.importable) == ("text:bert", "my-text 1.0", True)
    assert "text_mod" not in sys.modules
    assert registry.load(plugin).__name__ == "T"


@pytest.mark.parametrize(
    ("group", "typed", "found", "label"),
    [
        ("teachers", "image:resnet34", "image.resnet34", "image:resnet34"),
        ("teachers", "image:vit_base.augreg_in1k", "image.any", "image:<name>"),
        ("teachers", "flow:precomputed", "any.precomputed", "<modality>:precomputed"),
        ("teachers", "image:precomputed", "any.precomputed", "<modality>:precomputed"),
        ("students", "timm:resnet50", "timm.any", "timm:<name>"),
    ],
)
def test_lookup_order_is_exact_then_any_modality_then_any_name(site, group, typed, found, label):
    plugin = registry.find(f"ccl.{group}", typed)
    assert (plugin.name, plugin.label) == (found, label)
    assert not any("<" in name for name in registry.names(f"ccl.{group}"))


def test_an_exact_name_beats_the_placeholders(site):
    install(site, "mine", "[ccl.teachers]\nimage.precomputed = m:T\n")
    assert registry.find(registry.TEACHERS, "image:precomputed").distribution == "mine"
    assert registry.find(registry.TEACHERS, "audio:precomputed").distribution == "ccl-cli"


@pytest.mark.parametrize(
    ("group", "typed", "suggested"),
    [
        ("teachers", "audio:cnn15", "audio:cnn14"),
        ("teachers", "cnn14", "audio:cnn14"),
        ("teachers", "audio.cnn14", "audio:cnn14"),
        ("students", "r2plus1d_8", "r2plus1d_18"),
        ("datasets", "ucf-51", "ucf51"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(group, typed, suggested):
    with pytest.raises(PluginError, match=f"Did you mean '{suggested}'.*ccl plugins ls {group}") as caught:
        registry.find(f"ccl.{group}", typed)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("name", "source"),
    [("videos", "folder"), ("list.csv", "csv"), ("list.jsonl", "manifest"), ("packed", "shards")],
)
def test_a_path_without_its_source_is_refused_with_the_source(tmp_path, name, source):
    path = tmp_path / name
    file = {"folder": path / "x", "shards": path / "index.json"}.get(source, path)
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with pytest.raises(PluginError, match=f"Write '{source}:{path}' to use this path."):
        registry.find(registry.DATASETS, str(path))


def test_an_empty_installation_is_named_as_such(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(PluginError, match="Reinstall ccl-cli"):
        registry.find(registry.METHODS, "ccl")


# ---- broken neighbours


@pytest.mark.parametrize(
    ("group", "name", "reason"),
    [
        (registry.TEACHERS, "text:raises", "RuntimeError: this module never imports"),
        (registry.TEACHERS, "text:missing", "has no attribute 'Missing'"),
        (registry.TEACHERS, "text:gone", "No module named 'ccl_broken_gone'"),
        (registry.STUDENTS, "exits", "SystemExit: 3"),
        (registry.METHODS, "no_method", "has no Options"),
    ],
)
def test_a_broken_plugin_is_listed_and_fails_alone(site, monkeypatch, group, name, reason):
    install_broken(site)
    plugin = registry.find(group, name)
    with pytest.raises(PluginError, match=reason) as caught:
        registry.load(plugin)
    assert "ccl-broken 0.0.1" in caught.value.message
    assert registry.find(registry.TEACHERS, "audio:cnn14").importable
    for module in [module for module in sys.modules if module.startswith("ccl_broken")]:
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.parametrize(
    ("kind", "base", "name", "message"),
    [
        ("teachers", "Teacher", "my:bare", r"violates its contract: .* has no forward"),
        ("methods", "Method", "my.bare", r"cannot be loaded .*: Bare defines neither compare nor forward"),
    ],
)
def test_a_class_without_what_its_base_asks_for_is_refused(site, kind, base, name, message):
    source = f"from ccl_cli.{kind} import {base}\nclass Bare({base}):\n    pass\n"
    install(site, "bare", f"[ccl.{kind}]\nmy.bare = bare_{kind}:Bare\n", modules={f"bare_{kind}": source})
    with pytest.raises(PluginError, match=message):
        registry.load(registry.find(f"ccl.{kind}", name))


MALFORMED = {
    "no section": b"text.bad = bad:T  ; ccl.teachers\n",
    "section twice": b"[ccl.teachers]\ntext.a = a:T\n[ccl.teachers]\ntext.b = b:T\n",
    "name twice": b"[ccl.teachers]\ntext.a = a:T\ntext.a = b:T\n",
    "no value": b"[ccl.teachers]\ntext.bad\n",
    "long line": b"[ccl.teachers]\ntext.bad = " + 2000 * b"x" + b"\n",
    "latin-1": "[ccl.teachers]\n# é\ntext.bad = bad:T\n".encode("latin-1"),
    "utf-16": "[ccl.teachers]\ntext.bad = bad:T\n".encode("utf-16"),
    "binary": bytes(range(256)) + b"ccl.teachers",
    "a folder": b"",
}


@pytest.mark.parametrize("case", [*MALFORMED, "half removed", "renamed"])
def test_a_malformed_file_costs_one_warning_that_names_its_distribution(site, case):
    damage = {"half removed": {"metadata": False}, "renamed": {"prefix": "~"}}.get(case, {})
    info = install(site, "aaa_bad", MALFORMED.get(case, GOOD.replace("good", "bad")), **damage)
    if case == "a folder":
        (info / "entry_points.txt").unlink()
        (info / "entry_points.txt").mkdir()
    install(site, "good", GOOD)
    assert "aaa_bad 1.0" in the_problem()
    assert "text.good" in teachers()
    assert not {"text.a", "text.b", "text.bad"} & teachers()


@pytest.mark.parametrize("value", ["not a module!", "mod:", ":T", "", "mod:T extra", "%(here)s:T"])
def test_a_bad_value_costs_only_its_own_entry(site, value):
    install(site, "half_good", f"[ccl.teachers]\ntext.bad = {value}\ntext.fine = fine:T\n")
    assert "half-good 1.0: 'text.bad" in the_problem()
    assert "text.fine" in teachers()
    assert "text.bad" not in teachers()


def test_metadata_of_others_and_what_is_no_folder_are_not_our_business(site, monkeypatch, tmp_path):
    install(site, "other", b"[console_scripts\nbroken \xff")
    (tmp_path / "file.txt").write_text("not a folder")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "absent"), str(tmp_path / "file.txt"), "", *sys.path])
    assert registry.scan().problems == ()
    assert "audio.cnn14" in teachers()


# ---- who wins


def test_the_first_distribution_on_the_path_shadows_its_namesake(site, monkeypatch, tmp_path):
    later = tmp_path / "later"
    install(site, "twice", "[ccl.teachers]\ntext.one = new:T\n", version="2.0")
    install(later, "Twice", "[ccl.teachers]\ntext.one = old:T\ntext.two = old:T\n", version="1.0")
    monkeypatch.setattr(sys, "path", [*sys.path, str(later)])
    assert registry.find(registry.TEACHERS, "text:one").origin == "twice 2.0"
    assert "text.two" not in teachers()
    assert registry.scan().problems == ()


@pytest.mark.parametrize(
    ("name", "winner", "others"), [("text:good", "aaa", ["bbb"]), ("audio:cnn14", "ccl-cli", ["aaa", "bbb"])]
)
def test_a_name_claimed_twice_stays_with_the_first_or_the_built_in_and_both_are_named(
    site, name, winner, others
):
    for distribution in ("bbb", "aaa"):
        install(site, distribution, f"[ccl.teachers]\n{name.replace(':', '.')} = good:T\n")
    assert registry.find(registry.TEACHERS, name).distribution == winner
    for problem, other in zip(registry.scan().problems, others, strict=True):
        assert other in problem
        assert winner in problem


# ---- cost


def test_the_scan_of_many_distributions_imports_nothing_heavy(tmp_path):
    for number in range(150):
        text = (
            f"[ccl.teachers]\ntext.t{number} = t{number}:T\n" if number % 30 == 0 else "[console_scripts]\n"
        )
        install(tmp_path, f"dist{number}", text)
    code = (
        "import sys; from ccl_cli import registry\n"
        "assert len([p for p in registry.scan().plugins if p.name.startswith('text.')]) == 5\n"
        "print(*({'torch', 'timm', 'pydantic', 'numpy', 'ccl_plugins'} & set(sys.modules)))"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_scan_is_read_once_per_process(site, monkeypatch):
    reads, entries = [], registry._entries
    monkeypatch.setattr(registry, "_entries", lambda *which: reads.append(which) or entries(*which))
    for _ in range(3):
        registry.scan()
    assert len(reads) == 1

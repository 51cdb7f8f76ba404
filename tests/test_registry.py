from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest

from ccl_cli import registry
from ccl_cli.errors import PluginError
from tests.helpers.plugin_folder import install, install_broken

TEACHER = "class T:\n    def from_spec(): ...\n    def weight_files(): ...\n"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An empty folder at the front of sys.path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return folder


def teachers() -> set[str]:
    return {plugin.name for plugin in registry.plugins(registry.TEACHERS)}


def test_built_ins_are_registered_like_any_other(site):
    assert {"audio.cnn14", "image.resnet34", "image.any", "any.precomputed"} <= teachers()
    plugin = registry.find(registry.TEACHERS, "audio:cnn14")
    assert (plugin.label, plugin.distribution) == ("audio:cnn14", "ccl-cli")


def test_a_plugin_is_listed_without_being_imported_and_then_loaded(site):
    install(site, "my_text", "[ccl.teachers]\ntext.bert = text_mod:T\n", modules={"text_mod": TEACHER})
    plugin = registry.find(registry.TEACHERS, "text:bert")
    assert (plugin.label, plugin.origin, plugin.importable) == ("text:bert", "my-text 1.0", True)
    assert "text_mod" not in sys.modules
    assert registry.load(plugin).__name__ == "T"


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("image:resnet34", "image.resnet34"),
        ("image:vit_base.augreg_in1k", "image.any"),
        ("flow:precomputed", "any.precomputed"),
        ("image:precomputed", "any.precomputed"),
    ],
)
def test_lookup_order_exact_then_any_modality_then_any_name(site, typed, found):
    assert registry.find(registry.TEACHERS, typed).name == found


def test_an_exact_name_beats_the_placeholders(site):
    install(site, "mine", "[ccl.teachers]\nimage.precomputed = m:T\n")
    assert registry.find(registry.TEACHERS, "image:precomputed").distribution == "mine"
    assert registry.find(registry.TEACHERS, "audio:precomputed").distribution == "ccl-cli"


def test_a_family_of_students_is_found_by_its_prefix(site):
    assert registry.find(registry.STUDENTS, "timm:resnet50").label == "timm:<name>"
    assert "timm:<name>" not in registry.names(registry.STUDENTS)


def test_placeholders_are_shown_as_such_and_never_suggested(site):
    labels = {plugin.label for plugin in registry.plugins(registry.TEACHERS)}
    assert {"image:<name>", "<modality>:precomputed"} <= labels
    assert not any("<" in name for name in registry.names(registry.TEACHERS))


@pytest.mark.parametrize(
    ("group", "typed", "suggested"),
    [
        (registry.TEACHERS, "audio:cnn15", "audio:cnn14"),
        (registry.TEACHERS, "cnn14", "audio:cnn14"),
        (registry.TEACHERS, "audio.cnn14", "audio:cnn14"),
        (registry.STUDENTS, "r2plus1d_8", "r2plus1d_18"),
        (registry.METHODS, "cll", "ccl"),
        (registry.DATASETS, "ucf-51", "ucf51"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(site, group, typed, suggested):
    with pytest.raises(PluginError, match=f"Did you mean '{suggested}'") as caught:
        registry.find(group, typed)
    assert caught.value.exit_code == 5
    assert f"ccl plugins ls {group.removeprefix('ccl.')}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "source"),
    [("videos", "folder"), ("list.csv", "csv"), ("list.jsonl", "manifest"), ("packed", "shards")],
)
def test_a_path_without_its_source_is_refused_with_the_source(site, tmp_path, name, source):
    (tmp_path / "videos").mkdir()
    (tmp_path / "packed").mkdir()
    for file in ("list.csv", "list.jsonl", "packed/index.json"):
        (tmp_path / file).touch()
    path = tmp_path / name
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
    assert plugin.value in caught.value.message
    assert registry.find(registry.TEACHERS, "audio:cnn14").importable
    for module in [module for module in sys.modules if module.startswith("ccl_broken")]:
        monkeypatch.delitem(sys.modules, module)


GOOD = "[ccl.teachers]\ntext.good = good:T\n"

MALFORMED = {
    "no section": b"text.bad = bad:T  ; ccl.teachers\n",
    "section twice": b"[ccl.teachers]\ntext.a = a:T\n[ccl.teachers]\ntext.b = b:T\n",
    "name twice": b"[ccl.teachers]\ntext.a = a:T\ntext.a = b:T\n",
    "unclosed section": b"[ccl.teachers\ntext.bad = bad:T\n",
    "no value": b"[ccl.teachers]\ntext.bad\n",
    "latin-1": "[ccl.teachers]\n# é\ntext.bad = bad:T\n".encode("latin-1"),
    "utf-16": "[ccl.teachers]\ntext.bad = bad:T\n".encode("utf-16"),
    "binary": bytes(range(256)) + b"ccl.teachers",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_costs_one_warning_that_names_its_distribution(site, text):
    install(site, "aaa_bad", text)
    install(site, "good", GOOD)
    (problem,) = registry.scan().problems
    assert "aaa_bad 1.0" in problem
    assert "\n" not in problem
    assert "text.good" in teachers()
    assert not {"text.a", "text.b", "text.bad"} & teachers()


@pytest.mark.parametrize("value", ["not a module!", "mod:", ":T", "", "mod:T extra", "%(here)s:T"])
def test_a_bad_value_costs_only_its_own_entry(site, value):
    install(site, "half_good", f"[ccl.teachers]\ntext.bad = {value}\ntext.fine = fine:T\n")
    (problem,) = registry.scan().problems
    assert "half-good 1.0" in problem
    assert "text.bad" in problem
    assert "text.fine" in teachers()
    assert "text.bad" not in teachers()


def test_metadata_of_others_is_not_our_business(site):
    install(site, "other", b"[console_scripts\nbroken \xff")
    assert registry.scan().problems == ()


def test_a_folder_in_place_of_the_file_is_reported(site):
    info = install(site, "weird", "")
    (info / "entry_points.txt").unlink()
    (info / "entry_points.txt").mkdir()
    (problem,) = registry.scan().problems
    assert "weird 1.0" in problem


@pytest.mark.parametrize("kind", [{"metadata": False}, {"prefix": "~"}])
def test_half_uninstalled(site, kind):
    install(site, "leftover", GOOD, **kind)
    (problem,) = registry.scan().problems
    assert "partly uninstalled" in problem
    assert "leftover" in problem
    assert "text.good" not in teachers()


def test_an_unreadable_folder_on_the_path_is_skipped(site, monkeypatch, tmp_path):
    (tmp_path / "file.txt").write_text("not a folder")
    paths = [str(tmp_path / "absent"), str(tmp_path / "file.txt"), "", *sys.path]
    monkeypatch.setattr(sys, "path", paths)
    assert "audio.cnn14" in teachers()


def test_a_damaged_zip_on_the_path(site, monkeypatch, tmp_path):
    archive = tmp_path / "plugins.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped-2.0.dist-info/entry_points.txt", GOOD)
    monkeypatch.setattr(sys, "path", [*sys.path, str(archive)])
    assert registry.find(registry.TEACHERS, "text:good").origin == "zipped 2.0"
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(bad, "w") as file:
        file.writestr("zipped-2.0.dist-info/entry_points.txt", "[ccl.teachers\n")
    monkeypatch.setattr(sys, "path", [*sys.path[:-1], str(bad)])
    (problem,) = registry.scan().problems
    assert "bad.zip" in problem


# ---- who wins


def test_the_first_distribution_on_the_path_shadows_its_namesake(site, monkeypatch, tmp_path):
    later = tmp_path / "later"
    install(site, "twice", "[ccl.teachers]\ntext.one = new:T\n", version="2.0")
    install(later, "Twice", "[ccl.teachers]\ntext.one = old:T\ntext.two = old:T\n", version="1.0")
    monkeypatch.setattr(sys, "path", [*sys.path, str(later)])
    assert registry.find(registry.TEACHERS, "text:one").origin == "twice 2.0"
    assert "text.two" not in teachers()
    assert registry.scan().problems == ()


def test_a_name_claimed_twice_goes_to_the_first_and_both_are_named(site):
    install(site, "bbb", GOOD)
    install(site, "aaa", GOOD)
    (problem,) = registry.scan().problems
    assert registry.find(registry.TEACHERS, "text:good").distribution == "aaa"
    assert "aaa 1.0" in problem
    assert "bbb 1.0" in problem


def test_a_built_in_name_cannot_be_taken_over(site):
    install(site, "aaa_evil", "[ccl.teachers]\naudio.cnn14 = evil:T\n")
    assert registry.find(registry.TEACHERS, "audio:cnn14").distribution == "ccl-cli"
    (problem,) = registry.scan().problems
    assert "aaa-evil" in problem


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


@pytest.mark.parametrize(
    ("kind", "base", "message"),
    [
        ("teachers", "Teacher", r"violates its contract: .* has no forward"),
        ("methods", "Method", r"cannot be loaded .*: Bare defines neither compare nor forward"),
    ],
)
def test_a_class_without_what_its_base_asks_for_is_refused(tmp_path, monkeypatch, kind, base, message):
    source = f"from ccl_cli.{kind} import {base}\nclass Bare({base}):\n    pass\n"
    install(tmp_path, "bare", f"[ccl.{kind}]\nmy.bare = bare_{kind}:Bare\n", modules={f"bare_{kind}": source})
    monkeypatch.syspath_prepend(tmp_path)
    group = {"teachers": registry.TEACHERS, "methods": registry.METHODS}[kind]
    name = {"teachers": "my:bare", "methods": "my.bare"}[kind]
    with pytest.raises(PluginError, match=message):
        registry.load(registry.find(group, name))

"""Keys of caches: identity of the cache for a teacher, the files of a data set and a choice of views."""

from __future__ import annotations

from ccl_cli.config.recipe import Cache, Clip, Recipe
from ccl_cli.data.manifest import Manifest
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.embedding_cache import Key, is_any_of


def key_of(name: str, teacher: Teacher, manifest: Manifest, cache: Cache, clip: Clip) -> Key | None:
    """Key of a teacher's cache; None if the teacher's input depends on the student's view or on the draw."""
    size = f"at {clip.short_side} px"
    texts = {
        "track": "track",
        "frame": f"{cache.views} frames {size}",
        "clip": f"{cache.views} clips of {clip.frames} frames{clip.spacing} {size}",
    }
    text = texts.get(getattr(teacher.preprocess, "views", None) or "")
    if text is None:
        return None
    files = manifest.labels_hash if teacher.sees_label else manifest.files_hash
    if cache.precision != "fp32":
        text += f", {cache.precision}"
    return Key(name.partition("#")[0], teacher.fingerprint, manifest.name, files, text)


def wanted_key(name: str, teacher: Teacher, manifest: Manifest, recipe: Recipe) -> Key | None:
    """Key of the cache that a run reads or builds, or None. Hashes files only if a cache may exist."""
    use = recipe.cache.use
    if use == "off" or (use == "auto" and not is_any_of(name.partition("#")[0])):
        return None
    return key_of(name, teacher, manifest, recipe.cache, recipe.clip)


def views_per_video(key: Key, cache: Cache) -> int:
    """Number of embeddings of each video, K."""
    return 1 if key.views.startswith("track") else cache.views

"""Executors: map a function over work items on this machine, on a cluster, or with a plugin."""

from __future__ import annotations

from ccl_cli import registry
from ccl_cli.config.recipe import Executor
from ccl_cli.executors.work import ERROR, Events, Work


def map_items(work: Work, settings: Executor, events: Events) -> dict[str, str]:
    """Run all unfinished items; callers on several machines share the work.

    A failed item does not stop the others, and the next call retries it.

    Args:
        work: Work items.
        settings: Settings of the executor.
        events: Receives an event when an item starts here or has ended.

    Returns:
        Reasons by name of the items that are not done.

    Raises:
        Interrupted: stopped by a signal.
        SystemSetupError: the executor is unavailable.
        PluginError: the executor does not exist.
    """
    plugin = registry.find(registry.EXECUTORS, settings.name)
    run = registry.load(plugin)
    todo = work.unfinished()
    if not todo.items:
        return {}
    for name in todo.items:
        (todo.folder / name / ERROR).unlink(missing_ok=True)
    with registry.blaming(plugin):
        lost = run(todo, settings, events)
    left = todo.unfinished()
    return {name: left.reason(name) or lost.get(name, "The reason is unknown.") for name in left.items}

"""Executors: map a function over work items on this machine, on a cluster, or with a plugin."""

from __future__ import annotations

from ccl_cli import registry
from ccl_cli.config.recipe import Executor
from ccl_cli.executors.work import Events, Work


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
    lost: dict[str, str] = {}
    if todo.items:
        with registry.blaming(plugin):
            lost = run(todo, settings, events)
    reasons = {}
    for name in todo.items:
        if not todo.is_done(name):
            # An unsettled item may still have the error file of an earlier call, which does not count.
            known = todo.reason(name) if todo.is_settled(name) else lost.get(name)
            reasons[name] = known or "The reason is unknown."
    return reasons

"""One way to map a function over items: on this machine, on a cluster, or as another package has it."""

from __future__ import annotations

from ccl_cli import registry
from ccl_cli.config.recipe import Executor
from ccl_cli.executors.work import Events, Work


def map_items(work: Work, settings: Executor, events: Events) -> dict[str, str]:
    """Do every item that is not done yet; several callers, on any machines, share what is to do.

    An item that fails does not stop the others, and the next call tries it again.

    Args:
        work: The items.
        settings: Who does them, and how.
        events: Hears of every item that began here or has ended.

    Returns:
        Why an item is not done, by its name; of those that an earlier call had done, nothing.

    Raises:
        Interrupted: a signal stopped it.
        SystemSetupError: the executor cannot do its work.
        PluginError: there is no such executor.
    """
    plugin = registry.find(registry.EXECUTORS, settings.name)
    run = registry.load(plugin)
    left = work.left()
    lost: dict[str, str] = {}
    if left.items:
        with registry.blaming(plugin):
            lost = run(left, settings, events)
    reasons = {}
    for name in left.items:
        if not left.is_done(name):  # a reason from an earlier call says nothing of this one
            known = left.reason(name) if left.is_settled(name) else lost.get(name)
            reasons[name] = known or "It is not known why."
    return reasons

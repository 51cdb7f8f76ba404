"""``ccl model``: export, document, publish and download models."""

from ccl_cli.cli.common import command, group
from ccl_cli.cli.model import card, export, hub

app = group(
    "Export, document, publish and download models.",
    "ccl model export --output exported",
    "ccl model card --license apache-2.0",
    "ccl model push me/my-student --dry-run",
    "ccl model pull them/their-student",
)
command(app, "export", *export.EXAMPLES)(export.export)
command(app, "card", *card.EXAMPLES)(card.card)
command(app, "push", *hub.PUSH)(hub.push)
command(app, "pull", *hub.PULL)(hub.pull)

"""``ccl data``: the videos themselves."""

from __future__ import annotations

from ccl_cli.cli import data_pack
from ccl_cli.cli.common import examples, group, with_verbosity

app = group("Pack data sets.", "ccl data pack ucf51 --output packed")

app.command("pack", epilog=examples(*data_pack.EXAMPLES))(with_verbosity(data_pack.pack))

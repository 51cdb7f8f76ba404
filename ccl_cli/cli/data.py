"""``ccl data``: the videos themselves."""

from __future__ import annotations

from ccl_cli.cli import data_bench, data_pack
from ccl_cli.cli.common import examples, group, with_verbosity

app = group(
    "Pack data sets for fast reading, and measure it.",
    "ccl data pack ucf51 --output packed",
    "ccl data bench shards:packed",
)

app.command("pack", epilog=examples(*data_pack.EXAMPLES))(with_verbosity(data_pack.pack))
app.command("bench", epilog=examples(*data_bench.EXAMPLES))(with_verbosity(data_bench.bench))

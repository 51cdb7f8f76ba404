"""What every item needs, imported once by the server that the items' processes are forked from."""

import contextlib
import importlib
import os

for _module in filter(None, os.environ.get("CCL_PRELOAD", "").split(",")):
    with contextlib.suppress(Exception):  # what cannot be imported is the items' own trouble
        importlib.import_module(_module)

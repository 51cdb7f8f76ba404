"""Items for executors: what each does is in it, and that it did it is one line of a common file."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from ccl_cli.errors import DataError
from ccl_cli.executors.work import Work
from ccl_cli.utils.files import write_text


class Events:
    """Records what an executor tells."""

    def __init__(self):
        self.places, self.names = [], []

    def began(self, name, place):
        self.places.append(place)

    def ended(self, name):
        self.names.append(name)


def work(root, *names, **changes):
    """Items that cannot even begin: there is no such function."""
    items = {name: {"folder": str(root / name)} for name in names or ("item",)}
    return Work("test", root, "no.such.module:run", "tests.executors.things:done", items, **changes)


def run(item):
    begun = Path(item["folder"]).parent / "begun.txt"
    line(begun, item)
    match item["act"]:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "tell":
            raise DataError(os.environ["CCL_TEST"])
        case "raise":
            raise DataError("It is no use.", "Give up.")
        case "full":
            Path("/dev/full").write_text("No disk has room for this.")
        case "hang":
            time.sleep(600)
        case seconds:
            time.sleep(float(seconds))
    write_text(Path(item["folder"]) / "result", "done")
    line(begun.with_name("ended.txt"), item)


def done(item):
    return (Path(item["folder"]) / "result").is_file()


def line(path, item):
    with path.open("a") as file:
        file.write(f"{Path(item['folder']).name}\n")

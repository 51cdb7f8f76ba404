"""``ccl`` and ``python -m ccl_cli``: runs one command and turns errors into sentences."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ccl_cli.config.trust import note_typed
from ccl_cli.errors import Interrupted, UsageError
from ccl_cli.utils.signals import Stopped, handled_by, ignore_from_here, stop_here


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; from now on a signal that asks to stop ends it with a sentence.

    Args:
        argv: Its arguments; None: this process's, which has nothing to do afterwards.

    Returns:
        0, or the exit code of what went wrong (see :mod:`ccl_cli.errors`).
    """
    stopped = ""
    note_typed(sys.argv[1:] if argv is None else argv)
    try:
        with handled_by(stop_here):
            code = _run(argv)
    except Stopped as signalled:
        stopped = signalled.name  # and no more: its frames hold what has to end, such as processes that read
    if argv is None:
        ignore_from_here()
    if stopped:
        from ccl_cli.utils import console

        said = f"Stopped by {stopped}; what was finished is kept."
        return console.report(Interrupted(said, "Give the command again."))
    return code


def _run(argv: Sequence[str] | None) -> int:
    # Imported here, where signals are heeded: it takes a while.
    import typer

    from ccl_cli.cli.app import app
    from ccl_cli.utils import console

    console.configure(quiet="_CCL_COMPLETE" in os.environ)  # a warning would spoil the line being completed
    try:
        code = app(argv, prog_name="ccl", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _pipe_closed()
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", None) or _begun(argv)
        return console.report(UsageError(error.format_message(), f"`{command} --help` explains it."))
    except Exception as error:
        return console.report(error)
    return code if isinstance(code, int) else 0


def _begun(argv: Sequence[str] | None) -> str:
    """The command that was typed: an option without its value does not say whose it is."""
    from ccl_cli.cli.app import OWN

    words = sys.argv[1:] if argv is None else argv
    return f"ccl {words[0]}" if words and words[0] in OWN else "ccl"


def _pipe_closed() -> int:
    # The reader (head, less) has gone; keep the interpreter from complaining when it flushes at the end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Entry point of ``ccl`` and ``python -m ccl_cli``: run one command, and report errors as sentences."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from ccl_cli.config.trust import note_typed
from ccl_cli.errors import Interrupted, UsageError
from ccl_cli.utils.signals import Stopped, handled_by, ignore_from_here, stop_here

# New objects after which Python searches for garbage. Its default of 700 takes a fifth of the start of
# `ccl train`: the imports create 600,000 objects, and hardly any of them is garbage.
_COLLECT_AFTER = 50_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a stop signal ends it with a message instead of a traceback.

    Args:
        argv: Arguments of the command. Default: those of this process, which then ends with the command.

    Returns:
        0, or the exit code of the error (see :mod:`ccl_cli.errors`).
    """
    stopped = ""
    note_typed(sys.argv[1:] if argv is None else argv)
    try:
        with handled_by(stop_here):
            code = _run(argv)
    except Stopped as signalled:
        stopped = signalled.name  # keep the name only: the exception's frames keep loader workers alive
    if argv is None:
        ignore_from_here()
    if stopped:
        from ccl_cli.utils import console

        advice = "Run the same command again: it skips the work that is already complete."
        return console.report(Interrupted(f"Stopped by {stopped}.", advice))
    return code


def _run(argv: Sequence[str] | None) -> int:
    gc.set_threshold(_COLLECT_AFTER)
    # Imported after the signal handlers are set, because the import is slow.
    import typer

    from ccl_cli.cli.app import app
    from ccl_cli.utils import console

    console.configure(quiet="_CCL_COMPLETE" in os.environ)  # a warning would disturb shell completion
    try:
        code = app(argv, prog_name="ccl", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _pipe_closed()
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        group = hasattr(getattr(context, "command", None), "commands")
        lists = "lists the commands" if group else "describes the arguments and options"
        command = getattr(context, "command_path", None) or _begun(argv)
        return console.report(UsageError(error.format_message(), f"`{command} --help` {lists}."))
    except Exception as error:
        return console.report(error)
    return code if isinstance(code, int) else 0


def _begun(argv: Sequence[str] | None) -> str:
    """Return the name of the command, for errors that do not know it."""
    from ccl_cli.cli.app import OWN

    words = sys.argv[1:] if argv is None else argv
    return f"ccl {words[0]}" if words and words[0] in OWN else "ccl"


def _pipe_closed() -> int:
    # The reader (head, less) has closed the pipe. Prevent an error when the interpreter flushes stdout at
    # exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line: `bench`.

Knows the list of commands, and what becomes of an error. Refuses to compute anything itself: every command asks one of
the rooms and prints. Heavy imports are inside the commands, so that `bench --help` is fast.

Exit codes: 0; 2 wrong usage or input; 3 regressed; 4 inconclusive or nothing comparable; 5 some arms failed;
130 interrupted; 1 only for our own bugs, with their traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any, cast

import typer

from orderbench.orders.errors import BenchError
from orderbench.runs.cli_orders import decoders, orders, show, systems
from orderbench.runs.cli_results import baseline, check, compare, export, history, report
from orderbench.runs.cli_run import doctor, fit_pace, run, score, train
from orderbench.runs.shell import CLOSED, DebugOption, Grouped, patient_streams, say, write

app = typer.Typer(
    name="bench",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

UsageMistake = cast(type[Exception], typer.BadParameter.__mro__[1])  # click's UsageError, whichever click typer brings


def main() -> None:
    """Run `bench`. An error that a person can mend becomes a line on stderr and an exit code; our bugs keep their
    traceback.

    The exit code of a command whose answer it is, such as `bench check`, is kept whatever becomes of the output. Any
    other command ends with 2 if its output is lost to a full disk.
    """
    os.environ.pop("MPLBACKEND", None)  # a notebook's; ours are files, whatever it says
    os.environ.pop("SOURCE_DATE_EPOCH", None)  # a packager's; our figures hold no date
    with patient_streams() as lost:
        code = _run()
        sys.stdout.flush()
        why = lost()
        if why:
            told = f"the output could not be written: {why}"
            code = say(told, 2 if code is None and why != CLOSED else code or 0)
    sys.exit(code)


def _run() -> int | None:
    """The exit code; None of a command that ended well and has none of its own."""
    if "_BENCH_COMPLETE" in os.environ:  # a shell asks after TAB
        from typer.completion import completion_init  # type: ignore[attr-defined] # it is imported there

        completion_init()
    try:
        code = app(standalone_mode=False, prog_name="bench")
        if code == 130:  # typer has seen Ctrl-C
            say("interrupted", code)
    except BenchError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        return say(str(error), error.exit_code)
    except UsageMistake as error:
        return _say_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return say("interrupted", 130)
    except OSError as error:  # of a name that is too long, a folder that may not be read, and the like
        if error.filename is None:
            raise
        if "--debug" in sys.argv:
            traceback.print_exc()
        return say(f"'{error.filename}' cannot be used: {error.strerror or error}; name another file or folder", 2)
    return cast(int | None, code)


def _say_usage(error: Any) -> int:
    command = error.ctx.command_path if error.ctx else "bench"
    sentence = " ".join(error.format_message().split())
    if sentence.startswith("Usage:"):  # a command without its arguments: its help, as asked
        print(error.format_message(), file=sys.stderr)
        return 2
    return say(f"{sentence.rstrip('.')}; `{command} --help` shows what would do", 2)


@app.callback(invoke_without_command=True)
def bench(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """What does a decoding order buy, in steps, time and quality, when everything else stays the same?

    \b
    Examples:
      bench orders                      every order, its paper and its options
      bench decoders                    every decoder: what stands behind the +
      bench systems                     every published system, and its arm
      bench show radial                 the plan of one order, drawn here
      bench orders --rank --steps 13    all orders, by the price of parallel steps
      bench run --orders raster,radial  two orders, under the shipped weights
      bench COMMAND --help              what a command does, with examples
      bench completion --help           how TAB completes flags and orders
    """
    if version:
        from orderbench.runs import __version__

        print(f"orderbench {__version__}")


def completion(
    shell: Annotated[
        str | None, typer.Argument(metavar="bash|zsh|fish", help="Which shell. Default: that of SHELL.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Print the script that lets TAB complete commands, flags, orders and paces.

    \b
    Examples:
      eval "$(bench completion bash)"        now; in ~/.bashrc, always
      eval "$(bench completion zsh)"         the same, in ~/.zshrc after compinit
      bench completion fish > ~/.config/fish/completions/bench.fish
    """
    from orderbench.runs.completion import completion_script, shell_of

    write(completion_script(shell_of(os.environ.get("SHELL", "")) if shell is None else shell))


COMMANDS = (
    orders, decoders, systems, show, train, fit_pace, run, score, compare, export, report,
    check, baseline, history, doctor, completion,
)  # fmt: skip

for command in COMMANDS:
    app.command(cls=Grouped)(command)

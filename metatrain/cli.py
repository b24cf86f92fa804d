"""The command `metatrain COMMAND [overrides]`. Imports nothing heavy, so that help is instant."""

from __future__ import annotations

import gc
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

# What each command does, and the module whose `main(arguments)` does it, imported only when it is called.
COMMANDS = {
    "train": ("metatrain.commands.train", "meta-train a model on a distribution of tasks"),
    "resume": ("metatrain.commands.resume", "resume a stopped run: metatrain resume [RUN|latest]"),
    "sweep": ("metatrain.commands.sweep", "hyperparameter search for train, scored on meta-validation tasks"),
    "study": ("metatrain.commands.study", "start the missing runs of a study (a YAML file) and write its tables: metatrain study FILE"),
    "finetune": ("metatrain.commands.finetune", "adapt a model to a new task from a few labelled examples"),
    "predict": ("metatrain.commands.predict", "predict labels with a finetuned model"),
    "score": ("metatrain.commands.score", "score a finetuned model on labelled data: F1 by class, confusion matrix, calibration, errors"),
    "export": ("metatrain.commands.export", "write a finetuned classifier as an ONNX graph, which runs without torch"),
    "serve": ("metatrain.commands.serve", "serve many few-shot tasks on one model over HTTP"),
    "check": ("metatrain.commands.check", "find labels that look wrong in labelled data"),
    "suggest": ("metatrain.commands.suggest", "rank unlabelled texts by what to label next"),
    "push": ("metatrain.commands.push", "upload a model to the Hugging Face hub"),
    "evaluate": ("metatrain.commands.evaluate", "compare a model with baselines on few-shot test episodes"),
    "tasks": ("metatrain.commands.tasks", "show a task distribution and check its splits"),
    "plan": ("metatrain.commands.plan", "estimate time, memory and disk of a training run, and cheaper alternatives"),
    "report": ("metatrain.commands.report", "write an HTML report of a run: metatrain report [RUN]"),
    "compare": ("metatrain.commands.compare", "compare settings and scores of runs, paired by episode: metatrain compare RUN RUN"),
    "cite": ("metatrain.commands.cite", "print BibTeX of the method, the model and the data of a run, and of this software: metatrain cite [RUN]"),
    "ls": ("metatrain.commands.ls", "list experiments with their results, methods, models, tasks and your runs"),
    "init": ("metatrain.commands.init", "copy an experiment to your own folder, or start a plug-in: metatrain init EXPERIMENT [NAME]"),
    "explain": ("metatrain.commands.explain", "explain a setting, its value, and which file or override set it: metatrain explain SETTING"),
    "doctor": ("metatrain.commands.doctor", "check this installation or a plug-in, and compare meta-gradient modes on your model and tasks"),
}

HELP = """\
metatrain meta-trains Hugging Face models on many tasks, so that they adapt to a new task from a few labelled examples.

usage: metatrain [--quiet|--json] COMMAND [SETTING=VALUE ...]

commands:
{commands}

examples:
  metatrain train +experiment=sentiment_fewshot
      meta-train all-MiniLM-L6-v2 on 19 small sentiment tasks, test it on 12 others with unseen labels
  metatrain finetune checkpoint=latest data.train=examples.csv data.test=held_out.csv
      adapt the model of the newest run to your own labels (columns: text, label)
  metatrain train tasks=files tasks.path=my_tasks/ inner.steps=3 outer.lr=1e-4 -m seed=0,1,2
      meta-train on a folder of labelled files, with three seeds

more:
  metatrain COMMAND --help        common settings and config groups of a command
  metatrain COMMAND --cfg job     print the resulting configuration and exit
  metatrain explain SETTING       its meaning, its value, and which file or override set it
  metatrain -sc install=bash      shell completion (bash, zsh, fish): eval "$(metatrain -sc install=bash)"
  metatrain ls experiments        complete experiments with measured results

--quiet prints only errors; --json prints one JSON object per line. run.log always has every line.
exit codes: 0 done, 2 wrong input, 75 temporary failure (run the command again), 130/143 stopped by a signal after saving, 1 bug
"""


_SPINS = "1000"  # that a thread waits for the others before it gives its core away


def main() -> None:
    """Entry point of the console script."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # Read when torch is loaded. By default threads wait so long that one busy process beside them makes a run twenty times slower.
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    stop_on_signals()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # JSON lines and texts of any language are the same whatever the locale; names of files may hold what is no text.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output (head, less) has gone; keep Python from flushing into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + 13
    sys.exit(code)


def stop_on_signals() -> None:
    """Until a run catches signals itself, they end it with their exit codes."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _stop)


def _stop(number: int, frame: object) -> None:
    """A signal outside of what can be saved."""
    from metatrain.errors import Stopped

    raise Stopped(number, "stopped before there was anything to save")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    arguments = list(arguments)
    if arguments[:1] in (["--quiet"], ["--json"]):
        os.environ["METATRAIN_CONSOLE"] = arguments.pop(0).lstrip("-")
    if arguments[:1] in (["-sc"], ["--shell-completion"]):
        from metatrain.config.completion import complete

        return complete(arguments[1:], COMMANDS, _completer)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())))
        return 0
    if arguments[0] in ("-V", "--version"):
        from metatrain.version import __version__

        print(f"metatrain {__version__}")
        return 0
    command = arguments[0]
    if command not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(COMMANDS)}"
        return _complain(f"unknown command '{command}'; {hint}", 2)
    return _run_command(command, arguments[1:])


def _completer(command: str) -> Callable[[list[str]], list[str]] | None:
    """Return the completions of a command whose settings Hydra does not compose."""
    return getattr(importlib.import_module(COMMANDS[command][0]), "completions", None) if command in COMMANDS else None


def _run_command(command: str, arguments: list[str]) -> int:
    from metatrain.errors import RestartableError, Stopped, UserError, of_system

    _quiet_libraries()
    try:
        module = _imported(COMMANDS[command][0])
        if arguments[:1] and arguments[0] in getattr(module, "SUBCOMMANDS", {}):
            module = _imported(module.SUBCOMMANDS[arguments.pop(0)])
        if {"-h", "--help"} & set(arguments):
            print(_help(command, module), end="")
        else:
            module.main(arguments)
    except (UserError, RestartableError) as error:
        return _complain(str(error), error.exit_code)
    except Stopped as stop:
        print(f"metatrain: {stop}", file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        return _complain("interrupted before there was anything to save", 130)
    except OSError as error:
        found = of_system(error)
        if found is None:
            raise
        return _complain(str(found), found.exit_code)
    return 0


def _imported(name: str) -> ModuleType:
    """Import a module of a command with garbage collection paused: what it imports is never garbage, and looking for some takes a seventh of the time."""
    if name in sys.modules:
        return sys.modules[name]
    gc.disable()
    try:
        module = importlib.import_module(name)
    finally:
        gc.enable()
    gc.freeze()
    return module


def _help(command: str, module: ModuleType) -> str:
    """A command's own words and, where Hydra composes its settings, the most important of these."""
    if not hasattr(module, "SHOWN"):
        return module.USAGE
    from metatrain.config.help import page

    return page(command, module.USAGE, module.SHOWN)


def _quiet_libraries() -> None:
    """Keep the libraries' own progress bars and advice out of our output; must happen before they are imported.

    A terminal shows how far a download from the hub has come.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty() or os.environ.get("METATRAIN_CONSOLE", "auto") != "auto":
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _complain(message: str, code: int) -> int:
    from metatrain.errors import one_line

    print(f"metatrain: error: {one_line(message)}", file=sys.stderr)
    return code

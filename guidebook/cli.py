"""The command ``guidebook``: look at this machine, predict, plan, run chapters, share results."""

# ruff: noqa: T201 - printing is what a command line is for
from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import guidebook

if TYPE_CHECKING:
    from guidebook.records import Found, Record
    from guidebook.runner import ChapterRun, Observer

USAGE_ERROR = 2
INTERRUPTED = 130

_RUN_EPILOG = """\
CHAPTER is a number (42), a name (42-quantization-gguf) or a notebook's path; without any, every
chapter runs. A chapter that is done is not run again, unless it, its parameters, the package
or a library has changed since. A failing chapter does not stop the others.

exit codes: 0 every chapter is done, 1 a chapter failed, 2 bad usage, 130 interrupted
"""


_PREDICT_EPILOG = """\
FILE has the columns hardware, architecture and, where wanted, quant, weights_bytes, n_devices,
n_prompt, n_generate, depth, context, flash_attention, kv_type, n_gpu_layers, n_cpu_moe,
kv_offload; what is empty keeps its default, other columns pass through. Each row comes back with
memory in bytes, whether it fits, tokens/s with a 90 % interval, and a note. A row that cannot be
answered says why in its note.

A prompt without tokens to generate asks for prefill, everything else for decoding, on average over
the generated tokens.

  guidebook predict "GeForce RTX 3090" llama-3-8b --quant Q4_K_M --depth 4096
  guidebook predict --cases cases.csv > answers.csv
"""

_DOCTOR_EPILOG = """\
The first problem listed is the root cause. No fix is ever run for you.

exit codes: 0 nothing to do, 1 warnings, 2 a problem or bad usage
"""

_CALIBRATE_EPILOG = """\
For each table of published measurements: the mean absolute error of predictions for devices that
were left out of the fit, beside other tools' errors on the same rows. --rows lists every
measurement. --write stores the coefficients in the package's catalog/speed.json.
"""

_BENCH_EPILOG = """\
Every runtime has a process of its own and gets the same prompts; decoding is greedy. Without
--engine, everything takes part that is found here: llama.cpp in process, its server, transformers,
and running servers that have the model. Close other programs first: they cost speed.

engines: llama-cpp, llama-cpp-server, transformers, ollama, openai (any server with that API)

exit codes: 0 every runtime was measured, 1 one failed, 2 bad usage, 130 interrupted

  guidebook bench --repetitions 3 --out speeds.csv
  guidebook bench --engine llama-cpp --server http://127.0.0.1:1234/v1 --model model.gguf
"""


_RECORD_EPILOG = """\
A record holds the kind of machine, versions, verdicts with their evidence, and measurements. It
holds no host name, user name, path, serial number or token, and no text that a chapter wrote
freely. A model that is not in the catalog is a hash of its name. Read it before you share it.

  guidebook record
  guidebook record runs/rented --out records/rented-a100.json
"""

_COMPARE_EPILOG = """\
A and B are records, by file or by name under records/, or folders with results. Measurements are
compared where a chapter ran with the same model and profile; the device may be another one. A
difference counts if the 99 % interval of the ratio lies wholly beyond the allowance.

exit codes: 0 they match, 1 a claim held on one and was refuted on the other, or a measurement
differs beyond noise; 2 bad usage

  guidebook compare _build/run runs/rented --claims-only
"""

_REPORT_EPILOG = """\
The plan says what to run on the machine that the results come from, what to buy next, when to rent
instead, and how every claim came out, with its evidence. Chapters without results are named. It
holds no personal data. Prices are dated; your own go into CSV files named by GUIDEBOOK_PRICES and
GUIDEBOOK_CLOUD_PRICES.

  guidebook report
  guidebook report runs/rented --want qwen2.5-32b --budget 1500 --format markdown
"""

_REPORT_FORMATS = {"markdown": "to_markdown", "html": "to_html", "json": "to_json"}

_CASE_OPTIONS = {
    "quant": "file type of the weights (default: Q4_K_M; MXFP4 for gpt-oss)",
    "weights_bytes": "size of the real file, where it is known",
    "n_devices": "so many of the same device (default: 1)",
    "n_prompt": "tokens of the prompt (default: 0)",
    "n_generate": "tokens to generate (default: 128; 0 if there is a prompt)",
    "depth": "tokens in the context before (default: 0)",
    "context": "context to allocate (default: what the tokens need)",
    "flash_attention": "1 or 0 (default: 1)",
    "kv_type": "type of the KV cache: f16, q8_0, q4_0, or keys/values as q8_0/f16",
    "n_gpu_layers": "layers on the GPU (default: as many as fit)",
    "n_cpu_moe": "layers, from the first, whose experts stay in RAM (default: auto, as few as "
    "needed if that is faster than whole layers in RAM)",
    "kv_offload": "KV cache on the GPU, 1 or 0 (default: 1)",
}


_BENCH_FORMATS = ("table", "csv", "json", "markdown")
_BENCH_ENDINGS = {".csv": "csv", ".json": "json", ".md": "markdown"}


class UsageError(ValueError):
    """The command line asks for something that cannot be done."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return USAGE_ERROR
    try:
        code = _COMMANDS[options.command](options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`guidebook machine | head -1`): not an error, but
        # Python would complain when it flushes at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UsageError as error:
        print(f"guidebook: {error}", file=sys.stderr)
        return USAGE_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="guidebook",
        description="The command behind the book 'Develop Locally, Deploy to the Cloud'.",
    )
    parser.add_argument("--version", action="version", version=f"guidebook {guidebook.__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")

    machine = commands.add_parser(
        "machine",
        help="say what this machine is",
        description="Say what this machine is: CPU, memory, GPUs, disk, system and software.",
    )
    machine.add_argument("--json", action="store_true", help="print JSON")
    machine.add_argument(
        "--measure",
        action="store_true",
        help="measure memory bandwidth and arithmetic too (some seconds)",
    )

    _add_doctor(commands)
    _add_predict(commands)
    _add_plan(commands)
    _add_calibrate(commands)
    _add_bench(commands)
    _add_record(commands)
    _add_compare(commands)
    _add_report(commands)

    run = commands.add_parser(
        "run",
        help="run chapters headless",
        description="Run chapters headless, each in its own process.",
        epilog=_RUN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("chapters", nargs="*", metavar="CHAPTER", help="what to run (default: all)")
    run.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a chapter's parameter; may be repeated",
    )
    run.add_argument("--model", help="'embedded', a Hugging Face id, a folder, or a .gguf file")
    run.add_argument("--device", help="auto, cpu, cuda, metal or rocm")
    run.add_argument("--profile", choices=("quick", "full"), help="how long to measure")
    run.add_argument(
        "--workers",
        type=_positive,
        default=1,
        metavar="N",
        help="chapters to run at once (default: 1). More than one share the memory bandwidth and "
        "the cores, so their speeds come out too low: use it to test, not to measure",
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: _build/run)")
    run.add_argument("--fresh", action="store_true", help="run again what is already done")
    run.add_argument(
        "--notebooks",
        type=Path,
        metavar="DIR",
        help="the chapters' folder (default: notebooks/ here or above, or $GUIDEBOOK_NOTEBOOKS)",
    )
    run.add_argument(
        "--cell-timeout",
        type=_positive,
        default=None,
        metavar="S",
        help="seconds after which a cell counts as hung (default: 1200)",
    )
    return parser


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="find what is wrong with this set-up, and say what to type",
        description="Check platform, WSL2, driver, CUDA toolkit, Python, libraries and room.",
        epilog=_DOCTOR_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--json", action="store_true", help="print JSON, without personal data")
    doctor.add_argument("--explain", metavar="CHECK", help="explain one check, and run none")
    doctor.add_argument(
        "--only", metavar="CHECK", nargs="+", default=[], help="run these checks or groups only"
    )
    doctor.add_argument(
        "--model",
        dest="models",
        metavar="NAME",
        action="append",
        default=[],
        help="a model of the catalog that there must be room for; may be repeated",
    )


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    predict = commands.add_parser(
        "predict",
        help="say whether a model fits on a device, and how fast it runs",
        description="Predict memory and speed of a model on a device, or of a table of cases.",
        epilog=_PREDICT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    predict.add_argument("hardware", nargs="?", help="a device of the catalog")
    predict.add_argument(
        "architecture", nargs="?", help="a model of the catalog, a .gguf file, or a config.json"
    )
    predict.add_argument("--cases", type=Path, metavar="FILE", help="a CSV file, one case a row")
    for name, meaning in _CASE_OPTIONS.items():
        predict.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="X", help=meaning)
    predict.add_argument("--ram", metavar="NAME", help="where layers go that a GPU has no room for")
    predict.add_argument("--json", action="store_true", help="print JSON")


def _add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plan = commands.add_parser(
        "plan",
        help="say what runs best on this machine",
        description="For each use, the models that fit this machine and are fast enough, with the "
        "command that starts them.",
    )
    plan.add_argument("--hardware", metavar="NAME", help="plan for a device of the catalog instead")
    plan.add_argument(
        "--n-devices", type=_positive, default=1, metavar="N", help="so many of them (default: 1)"
    )
    plan.add_argument("--ram", metavar="NAME", help="its kind of RAM, as in the catalog")
    plan.add_argument(
        "--ram-gib", type=_positive, default=32, metavar="N", help="its RAM (default: 32)"
    )
    plan.add_argument("--json", action="store_true", help="print JSON")


def _add_calibrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    calibrate = commands.add_parser(
        "calibrate",
        help="fit the speed model and check it on devices left out of the fit",
        description="Fit the speed model to published measurements, and check it.",
        epilog=_CALIBRATE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    calibrate.add_argument("--rows", action="store_true", help="list every measurement")
    calibrate.add_argument("--write", action="store_true", help="store the coefficients")


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    bench = commands.add_parser(
        "bench",
        help="compare everything here that runs a model",
        description="Compare runtimes: load time, time to first token, speed, latency, memory.",
        epilog=_BENCH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument(
        "--model",
        default="embedded",
        help="'embedded' (default), a Hugging Face id, a folder, or a .gguf file",
    )
    bench.add_argument(
        "--engine",
        dest="engines",
        metavar="NAME",
        action="append",
        default=[],
        help="only this engine; may be repeated",
    )
    bench.add_argument(
        "--server",
        dest="servers",
        metavar="URL",
        action="append",
        default=[],
        help="ask this server too; may be repeated",
    )
    for name, meaning in (
        ("n-prompt", "tokens of each prompt (default: 256)"),
        ("n-generate", "tokens of each answer (default: 64)"),
        ("repetitions", "measured answers (default: 5)"),
    ):
        bench.add_argument(f"--{name}", type=_positive, metavar="N", help=meaning)
    bench.add_argument(
        "--concurrency",
        type=_positives,
        metavar="N,N,…",
        help="requests at once, for servers (default: 1,2,4)",
    )
    bench.add_argument("--format", choices=_BENCH_FORMATS, help="how to write it (default: table)")
    bench.add_argument(
        "--out", type=Path, metavar="FILE", help="write it there; .csv, .json and .md say how"
    )


def _add_record(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    record = commands.add_parser(
        "record",
        help="write what was found here as a file to share, without personal data",
        description="Make one anonymous record of the results of a run.",
        epilog=_RECORD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_results(record)
    record.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write (default: records/MACHINE-DAY.json)",
    )
    record.add_argument("--replace", action="store_true", help="replace a record that is there")


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compare = commands.add_parser(
        "compare",
        help="say in what two runs differ, beyond noise",
        description="Compare two records or runs: verdicts, measurements, versions.",
        epilog=_COMPARE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("a", metavar="A", type=Path, help="a record, or a folder with results")
    compare.add_argument("b", metavar="B", type=Path, help="another one")
    compare.add_argument(
        "--allow",
        type=_percentage,
        metavar="PERCENT",
        help="by so much measurements may differ and still agree (default: 10)",
    )
    compare.add_argument(
        "--claims-only",
        action="store_true",
        help="let the claims alone decide the exit code: for two different machines",
    )
    compare.add_argument("--json", action="store_true", help="print JSON")


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = commands.add_parser(
        "report",
        help="write your plan: what to run, to buy and to rent, and how the claims came out",
        description="Make the plan of chapter 71 from the results of a run.",
        epilog=_REPORT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_results(report)
    report.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: report/ beside results/)"
    )
    report.add_argument(
        "--format", choices=_REPORT_FORMATS, help="print it like this instead of writing files"
    )
    report.add_argument(
        "--want",
        dest="models",
        metavar="MODEL",
        action="append",
        default=[],
        help="a model of the catalog that you want to run; may be repeated",
    )
    report.add_argument("--budget", type=_amount, metavar="USD", help="what there is to spend")
    report.add_argument("--psu", type=_amount, metavar="W", help="rating of the power supply")
    report.add_argument(
        "--hours", type=_amount, metavar="H", help="hours of use in a week (default: 10)"
    )
    report.add_argument(
        "--kwh", type=_amount, metavar="USD", help="price of a kWh of electricity (default: 0.187)"
    )
    report.add_argument("--memory", choices=("DDR4", "DDR5"), help="kind of the memory modules")
    report.add_argument(
        "--no-card-slot",
        dest="card_slot",
        action="store_false",
        default=None,
        help="no graphics card can be built in",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        nargs="?",
        type=Path,
        metavar="RESULTS",
        help="a folder with results files, or of a run (default: _build/run)",
    )


def _positives(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


_positives.__name__ = "list of positive whole numbers"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _percentage(text: str) -> float:
    return _amount(text) / 100


# argparse names the function in "invalid … value: '0'".
_positive.__name__ = "positive whole number"
_amount.__name__ = "amount"
_percentage.__name__ = "percentage"


def _machine(options: argparse.Namespace) -> int:
    import json

    from guidebook import machine
    from guidebook.machine import rates

    here = machine.describe()
    measured = [rates.memory_bandwidth(), rates.matrix_flops()] if options.measure else []
    if options.json:
        print(json.dumps(machine.to_dict(here, measured), indent=2))
    else:
        print(machine.show(here, measured))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    import json

    from guidebook import doctor

    try:
        if options.explain is not None:
            print(doctor.explain(options.explain))
            return 0
        report = doctor.examine(only=options.only, models=options.models)
    except LookupError as error:
        raise UsageError(str(error.args[0])) from error
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)
    return report.exit_code


def _predict(options: argparse.Namespace) -> int:
    from guidebook import cases, planner

    ram = options.ram or planner.DEFAULT_RAM
    given = {name: getattr(options, name) for name in ("hardware", "architecture", *_CASE_OPTIONS)}
    row = {name: value for name, value in given.items() if value is not None}
    if options.cases is not None:
        if row:
            raise UsageError("Give cases in a file, or one case as options, not both.")
        try:
            rows = cases.read(options.cases)
        except cases.CasesError as error:
            raise UsageError(str(error)) from error
        cases.write(cases.answer_rows(rows, ram), sys.stdout, as_json=options.json)
        return 0
    if "hardware" not in row or "architecture" not in row:
        raise UsageError("Give a device and a model, or --cases FILE; see --help.")
    answered = cases.answer_row(row, ram)
    if options.json:
        cases.write([answered], sys.stdout, as_json=True)
    elif answered["total_bytes"] is None:
        raise UsageError(answered["note"])
    else:
        print(cases.show(answered))
    return 0


def _plan(options: argparse.Namespace) -> int:
    import json

    from guidebook import machine, plan, planner, units
    from guidebook.machine import rates

    if options.hardware is None:
        here = machine.describe()
        on_gpu = any(gpu.kind != "other" for gpu in here.gpus)
        measured = (None, None) if on_gpu else (rates.memory_bandwidth(), rates.matrix_flops())
        wanted = plan.rig_of(here, *measured)
    else:
        try:
            wanted = plan.rig(
                options.hardware,
                options.n_devices,
                options.ram or planner.DEFAULT_RAM,
                options.ram_gib * units.GIB,
            )
        except LookupError as error:
            raise UsageError(str(error.args[0])) from error
    print(json.dumps(plan.to_dict(wanted), indent=2) if options.json else plan.show(wanted))
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    import json
    from importlib import resources

    from guidebook import calibration, scoreboard
    from guidebook.tables import table

    model, checks = calibration.calibrate()
    print(table(scoreboard.devices(checks) if options.rows else scoreboard.summary(checks)))
    if options.write:
        path = Path(str(resources.files("guidebook.catalog"))) / "speed.json"
        path.write_text(json.dumps(calibration.to_dict(model), indent=2) + "\n", "utf-8")
        print(f"\nWritten to {path.name}", file=sys.stderr)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from guidebook import bench

    names = ("n_prompt", "n_generate", "repetitions", "concurrency")
    given = {name: getattr(options, name) for name in names}
    try:
        settings = bench.Settings(**{k: value for k, value in given.items() if value is not None})
        found = bench.available(options.model, options.engines, options.servers)
    except bench.BenchError as error:
        raise UsageError(str(error)) from error
    _tell_left_out(found.left_out)
    if not found.contenders:
        raise UsageError("Nothing here can run the model. Install a runtime or start a server.")
    form = options.format
    if options.out is not None:
        form = form or _BENCH_ENDINGS.get(options.out.suffix.lower(), "table")
        _check_writable(options.out)

    def tell(progress: bench.Progress) -> None:
        print(progress, file=sys.stderr, flush=True)

    report = bench.run(found.contenders, settings, progress=tell)
    text = {
        "table": lambda: f"{report}\n",
        "csv": report.to_csv,
        "json": report.to_json,
        "markdown": report.to_markdown,
    }[form or "table"]()
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, encoding="utf-8")
        print(f"Written to {options.out}", file=sys.stderr)
    if report.interrupted:
        return INTERRUPTED
    return int(any(result.failed for result in report.results))


def _record(options: argparse.Namespace) -> int:
    from guidebook import records

    try:
        record = records.make(_read(options.results))
        path = options.out or _project() / "records" / record.file_name
        if not options.replace and path.exists() and records.load(path) != record:
            raise UsageError(
                f"{path} is there already. Give --replace, or another file with --out."
            )
        records.save(record, path)
    except records.RecordError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"The record cannot be written: {error.strerror}.") from error
    print(f"Written to {_short(path)}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    import json

    from guidebook import compare, records

    allowance = compare.ALLOWANCE if options.allow is None else options.allow
    try:
        a, b = (_record_of(path) for path in (options.a, options.b))
        found = compare.compare(a, b, allowance=allowance)
    except records.RecordError as error:
        raise UsageError(str(error)) from error
    print(json.dumps(found.to_dict(), indent=2) if options.json else found)
    matches = not found.contradictions if options.claims_only else found.matches
    return 0 if matches else 1


def _report(options: argparse.Namespace) -> int:
    from guidebook import records, renting_advice, report

    habits = {"hours_per_week": options.hours, "usd_per_kwh": options.kwh}
    given = {
        "models": tuple(options.models) or None,
        "budget_usd": options.budget,
        "psu_w": options.psu,
        "memory": options.memory,
        "card_slot": options.card_slot,
    }
    try:
        given["habits"] = renting_advice.Habits(
            **{name: value for name, value in habits.items() if value is not None}
        )
        wishes = report.Wishes(**{n: value for n, value in given.items() if value is not None})
        made = report.make(_read(options.results), wishes)
    except (records.RecordError, LookupError, ValueError) as error:
        raise UsageError(str(error.args[0])) from error
    if options.format is not None:
        print(getattr(made, _REPORT_FORMATS[options.format])(), end="")
        return 0
    try:
        paths = made.save(options.out or _beside(options.results) / "report")
    except OSError as error:
        raise UsageError(f"The report cannot be written: {error.strerror}.") from error
    print("\n".join(f"Written to {_short(path)}" for path in paths))
    return 0


def _read(given: Path | None) -> Found:
    """Read a run's results, and say what was not taken."""
    from guidebook import records

    found = records.read(given or _project() / "_build" / "run")
    _tell_left_out(found.left_out)
    return found


def _tell_left_out(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        print(f"left out: {sentence}", file=sys.stderr)


def _record_of(path: Path) -> Record:
    """Load a record by file or by name, or make one of a folder with results."""
    from guidebook import records

    if path.is_dir():
        return records.make(_read(path))
    if not path.exists() and len(path.parts) == 1:
        with contextlib.suppress(UsageError):
            path = _project() / "records" / f"{path.name.removesuffix('.json')}.json"
    return records.load(path)


def _beside(given: Path | None) -> Path:
    """Return the folder of a run, given itself or its folder with results."""
    folder = given or _project() / "_build" / "run"
    return folder if (folder / "results").is_dir() else folder.parent


def _project() -> Path:
    """Return the book's folder: the one that holds the chapters' folder."""
    from guidebook import runner

    try:
        return runner.find_notebooks(None).resolve().parent
    except runner.RunError as error:
        raise UsageError(
            "The book's folder is not here or above. Change into it, or name the folders."
        ) from error


def _check_writable(path: Path) -> None:
    """Find out before minutes of measuring whether the result can be written."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: name a file in a folder that exists.")


def _run(options: argparse.Namespace) -> int:
    from guidebook import runner

    try:
        chapters = runner.find_chapters(options.chapters, options.notebooks)
        out = options.out
        if out is None:
            out = _default_out(runner.find_notebooks(options.notebooks))
        summary = runner.run(
            chapters,
            out=out,
            parameters=_parameters(options),
            workers=options.workers,
            fresh=options.fresh,
            cell_timeout=options.cell_timeout or runner.CELL_TIMEOUT,
            observer=progress(len(chapters)),
        )
    except runner.RunError as error:
        raise UsageError(str(error)) from error
    print(summary)
    print(f"\nWritten to {out}")
    if summary.interrupted:
        print("guidebook: stopped; the same command goes on from here.", file=sys.stderr)
    return summary.exit_code


def _default_out(notebooks: Path) -> Path:
    return _short(notebooks.resolve().parent / "_build" / "run")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _parameters(options: argparse.Namespace) -> dict[str, str]:
    """Merge ``-p`` and its shortcuts; a name given twice must have one value."""
    shortcuts = [(name, getattr(options, name)) for name in ("model", "device", "profile")]
    merged: dict[str, str] = {}
    for name, value in (*options.parameters, *shortcuts):
        if value is not None and merged.setdefault(name, value) != value:
            raise UsageError(f"The parameter {name} is given as {merged[name]} and as {value}.")
    return merged


def progress(total: int) -> Observer:
    """Choose how to show progress: a bar on a terminal, lines in a log."""
    return _Bar(total) if sys.stderr.isatty() else _Lines(total)


class _Bar:
    """A progress bar for a terminal: chapters done, and the cell that runs."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, unit="chapter", file=sys.stderr)
        self._now: dict[str, str] = {}

    def started(self, chapter: str) -> None:
        self._show(chapter, "starting")

    def reached_cell(self, chapter: str, number: int, total: int) -> None:
        self._show(chapter, f"cell {number}/{total}")

    def ended(self, run: ChapterRun) -> None:
        self._now.pop(run.chapter, None)
        self._bar.write(_line(run), file=sys.stderr)
        self._bar.update()
        self._bar.set_postfix_str(", ".join(self._now.values()))
        if self._bar.n >= self._bar.total:
            self._bar.close()

    def waited(self) -> None:
        self._bar.refresh()

    def _show(self, chapter: str, what: str) -> None:
        self._now[chapter] = f"{chapter} {what}"
        self._bar.set_postfix_str(", ".join(self._now.values()))


class _Lines:
    """Progress as lines, for a log: one when a chapter starts or ends, one every 30 s."""

    _EVERY = 30.0

    def __init__(self, total: int) -> None:
        self._total = total
        self._ended = 0
        self._now: dict[str, str] = {}
        self._shown = time.monotonic()

    def started(self, chapter: str) -> None:
        self._now[chapter] = f"{chapter} starting"
        self._show(f"{chapter}: running")

    def reached_cell(self, chapter: str, number: int, total: int) -> None:
        self._now[chapter] = f"{chapter} cell {number}/{total}"

    def ended(self, run: ChapterRun) -> None:
        self._now.pop(run.chapter, None)
        self._ended += 1
        self._show(_line(run))

    def waited(self) -> None:
        if time.monotonic() - self._shown >= self._EVERY:
            self._show(", ".join(self._now.values()))

    def _show(self, what: str) -> None:
        print(f"[{self._ended}/{self._total}] {what}", file=sys.stderr, flush=True)
        self._shown = time.monotonic()


def _line(run: ChapterRun) -> str:
    from guidebook import units

    time_taken = f" in {units.duration(run.seconds)}" if run.status == "done" else ""
    error = f": {run.error}" if run.error else ""
    return f"{run.chapter}: {run.status}{time_taken}{error}"


_COMMANDS = {
    "machine": _machine,
    "doctor": _doctor,
    "predict": _predict,
    "plan": _plan,
    "calibrate": _calibrate,
    "bench": _bench,
    "record": _record,
    "compare": _compare,
    "report": _report,
    "run": _run,
}

if __name__ == "__main__":
    sys.exit(main())

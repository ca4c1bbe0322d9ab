"""The command ``edge``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edge.process import prepare_process
from engines.console import run_app, stdout

app = typer.Typer(
    help="Frames in over MQTT, verdicts out: the worker beside the cameras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
schema = typer.Typer(help="Print the JSON Schema of what the worker reads or writes.", no_args_is_help=True)
app.add_typer(schema, name="schema")

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The worker's YAML file.")]
LogOption = Annotated[str, typer.Option("--log", help="Form of the log on stderr: text or json.", metavar="text|json")]
UrlOption = Annotated[str, typer.Option("--url", help="The broker: mqtt://host[:port] or mqtts://host[:port].")]


@app.callback()
def _set_up() -> None:
    prepare_process()


def _logging(form: str) -> None:
    from edge.logs import set_up_logging

    if form not in ("text", "json"):
        raise typer.BadParameter("should be text or json", param_hint="--log")
    set_up_logging("json" if form == "json" else "text")


@app.command()
def run(config: ConfigOption, log: LogOption = "text") -> None:
    """Run the worker until SIGTERM.

    Exit codes: 0 stopped by a signal, 75 transient (restart it), 78 bad configuration or artifact (do not restart).
    """
    from edge.config_file import load_config
    from edge.worker import Worker

    _logging(log)
    Worker(load_config(config)).run()


@schema.command("config")
def schema_config() -> None:
    """The configuration file's schema."""
    from edge.config_file import config_schema

    stdout.print_json(json.dumps(config_schema()))


@schema.command("verdict")
def schema_verdict() -> None:
    """The published verdict's schema."""
    from edge.verdict import verdict_schema

    stdout.print_json(json.dumps(verdict_schema()))


def main() -> None:
    """Entry point of the console command."""
    run_app(app, "edge")


if __name__ == "__main__":
    main()

"""The command ``edge``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edge.process import prepare_process
from engines.console import run_app, stderr, stdout

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
PrefixOption = Annotated[str, typer.Option(help="Topic prefix of the cameras.")]
UsernameOption = Annotated[str | None, typer.Option(help="User name at the broker.")]
PasswordOption = Annotated[Path | None, typer.Option(help="File that holds the password.")]
CaOption = Annotated[Path | None, typer.Option(help="PEM file of the authority that signed the broker's certificate.")]
VersionOption = Annotated[str, typer.Option("--mqtt", help="MQTT version: 5 or 3.1.1.")]
DEFAULT_URL = "mqtt://localhost:1883"


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
    """Run the worker until SIGTERM. A SIGHUP loads the configuration anew, beside the one that runs.

    Exit codes: 0 stopped by a signal, 75 transient (restart it), 78 bad configuration or artifact (do not restart).
    """
    from edge.pool import end_on_sigterm

    end_on_sigterm()
    from edge.config_file import load_config
    from edge.worker import Worker

    _logging(log)
    Worker(load_config(config), read=lambda: load_config(config)).run()


@app.command()
def demo(
    seconds: Annotated[float, typer.Option("--for", min=0, help="Seconds to run; 0: until interrupted.")] = 0,
    cameras: Annotated[int, typer.Option(min=1, max=100, help="Simulated cameras.")] = 4,
    fps: Annotated[float, typer.Option(min=0.1, max=60, help="Frames a second for each camera.")] = 4,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of the status page; else 8088 or a free one.")
    ] = None,
    log: LogOption = "text",
) -> None:
    """Broker, simulated cameras, worker and status page in one: no network, no GPU, no files needed."""
    from edge.demo.run import run_demo

    _logging(log)
    run_demo(seconds, cameras, fps, port)


@app.command()
def check(
    config: ConfigOption,
    pin: Annotated[
        bool, typer.Option("--pin", help="Print the hashes that pin every artifact, by configuration key.")
    ] = False,
) -> None:
    """Try everything the worker needs and say what to mend; ends with 0, 75 or 78 as `edge run` would."""
    from edge.check import check as examine
    from edge.check import pins
    from edge.config_file import load_config

    if pin:
        for key, digest in pins(load_config(config)).items():
            stdout.print(f"{key}: {digest}", soft_wrap=True)
        return
    worst = 0
    for finding in examine(config):
        mark = "[red]FAIL[/]" if finding.exit_code else "[yellow]warn[/]" if finding.warning else "[green]ok[/]  "
        stdout.print(f"{mark} [bold]{finding.stage:<10}[/] {escape(finding.sentence)}", soft_wrap=True)
        worst = max(worst, finding.exit_code)
    raise typer.Exit(worst)


@app.command()
def publish(
    source: Annotated[str, typer.Argument(help="A folder, a picture, a video, rtsp://…, or a webcam's number.")],
    camera: Annotated[str, typer.Option(help="The camera's name, as in <prefix>/<camera>/frame.")],
    fps: Annotated[
        float | None, typer.Option(min=0.01, max=1000, help="Frames a second; else the video's own.")
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end (folders and files).")] = False,
    url: UrlOption = DEFAULT_URL,
    prefix: PrefixOption = "cameras",
    username: UsernameOption = None,
    password_file: PasswordOption = None,
    ca_file: CaOption = None,
    version: VersionOption = "5",
) -> None:
    """Be a camera: publish pictures as frames, each one until the broker has confirmed it."""
    from edge.errors import FrameError
    from edge.publish import Publisher
    from edge.reach import settings_for, unique_client_id
    from edge.sources import native_fps, open_source
    from edge.wire import Topics
    from engines.errors import UsageError

    settings = settings_for(
        url,
        client_id=unique_client_id(f"publish-{camera}"),
        username=username,
        password_file=password_file,
        ca_file=ca_file,
        version=version,
        prefix=prefix,
    )
    try:
        topic = Topics(prefix, "publish").of_camera(camera, "frame")
    except FrameError as error:
        raise UsageError(f"--camera: {error}") from error
    publisher = Publisher(settings, topic, open_source(source, loop), fps or native_fps(source) or 1.0)
    with stderr.status(f"publishing {source} to {topic}"):
        sent = publisher.run()
    stdout.print(f"{sent.frames} frames to {topic} in {sent.seconds:.1f} s; {sent.refused} refused by the broker")
    if sent.refused:
        raise typer.Exit(1)


@app.command()
def watch(
    url: UrlOption = DEFAULT_URL,
    prefix: PrefixOption = "cameras",
    seconds: Annotated[float, typer.Option("--for", min=0, help="Seconds to watch; 0: until interrupted.")] = 0,
    username: UsernameOption = None,
    password_file: PasswordOption = None,
    ca_file: CaOption = None,
    version: VersionOption = "5",
) -> None:
    """Verdicts as they come, as a live table; a line each when the output is no terminal."""
    from edge.reach import settings_for, unique_client_id
    from edge.watch import Watcher

    settings = settings_for(
        url,
        client_id=unique_client_id("watch"),
        username=username,
        password_file=password_file,
        ca_file=ca_file,
        version=version,
        prefix=prefix,
    )
    Watcher(settings, prefix, stdout, seconds or None).run()


@app.command()
def bench(
    config: ConfigOption,
    images: Annotated[Path | None, typer.Option(help="Folder of JPEGs to send; else some are drawn.")] = None,
    size: Annotated[str, typer.Option(help="Width and height of drawn frames.", metavar="WxH")] = "1920x1080",
    cameras: Annotated[int, typer.Option(min=1, max=256, help="Simulated cameras.")] = 8,
    seconds: Annotated[float, typer.Option("--for", min=10, help="Seconds to measure.")] = 60,
    life: Annotated[bool, typer.Option("--life", help="Also measure start-up, memory and idle CPU.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """The whole path through a real broker, a bare loop without one, and the engine alone, interleaved in one run."""
    import dataclasses

    from edge.bench import run_bench
    from edge.config_file import load_config

    with stderr.status("measuring") as status:
        report = run_bench(load_config(config), images, cameras, seconds, status.update, size=_size(size), life=life)
    if as_json:
        stdout.print_json(json.dumps(dataclasses.asdict(report)))
        return
    stdout.print(f"path    {report.path_fps:8.1f} frames/s   through broker, decode, cascade and verdict")
    stdout.print(
        f"loop    {report.loop_fps:8.1f} frames/s   decode, cascade; no broker     path / loop {report.ratio:.3f}"
    )
    stdout.print(
        f"engine  {report.engine_fps:8.1f} rows/s     feature engine alone           "
        f"path / engine {report.path_fps / report.engine_fps:.3f}"
    )
    stdout.print(
        f"latency p50 {report.latency_ms['p50']:.0f} ms, p99 {report.latency_ms['p99']:.0f} ms under full load"
    )
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in report.stages_ms.items())
    stdout.print(f"medians, ms: {stages}; {report.inferences} inferences for {report.frames} frames")
    stdout.print(f"peak resident memory of this process {report.rss_mib:.0f} MiB")
    if report.life:
        stdout.print(
            "worker alone: ready {ready_s:.2f} s after start; resident {idle_rss_mib:.0f} MiB idle, "
            "{load_rss_mib:.0f} MiB under load; {idle_cpu_percent:.1f} % of a core when idle".format(**report.life)
        )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 16 <= int(width) <= 8192 and 16 <= int(height) <= 8192):
        raise typer.BadParameter("should be WIDTHxHEIGHT, each from 16 to 8192", param_hint="--size")
    return int(width), int(height)


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

"""``make image-test``: build the CPU image, run it as compose would, and let it judge the macaw through a real broker.

Needs root, buildah, mosquitto, the reference networks and photos, and a base image: ``BASE_IMAGE`` names one, else
debootstrap makes one (``SUITE``, ``MIRROR``). There is no daemon: buildah builds with chroot isolation, and the
container is run with unshare, chroot and setpriv under what compose.yaml promises: root read-only, no capability, no
new privileges, the image's own user, /tmp in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engines.console import stderr, stdout
from tests.mosquitto import free_port
from tests.shipped_broker import PASSWORDS, ShippedBroker

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED = Path(os.environ.get("PARROTGATE_SHARED") or ROOT.parent / "shared")
WORK = Path(os.environ.get("PARROTGATE_IMAGE_WORK") or ROOT / "out/image")
SUITE = os.environ.get("SUITE", "trixie")
MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")
BASE = os.environ.get("BASE_IMAGE", "")
TAG = "localhost/parrotgate:cpu"
NEEDED = {"buildah": "buildah", "mosquitto": "mosquitto", "mosquitto_pub": "mosquitto-clients", "unshare": "util-linux"}
READY_S = 60.0


class ImageTestError(Exception):
    """The image did not do what it should."""


def missing() -> list[str]:
    """What this machine lacks, each with what to do."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    wanted = NEEDED if BASE else {**NEEDED, "debootstrap": "debootstrap"}
    packages = sorted({package for tool, package in wanted.items() if shutil.which(tool, path=path) is None})
    found = [f"the tools are missing: apt-get install {' '.join(packages)}"] if packages else []
    if "debootstrap" in packages:
        found.append(
            "or name a base image of your own: make image-test BASE_IMAGE=docker.io/library/debian:trixie-slim"
        )
    if os.geteuid() != 0:
        found.append("it mounts and changes roots: run it as root")
    if not SHARED.is_dir():
        found.append(f"the reference networks and photos are not in {SHARED}: set PARROTGATE_SHARED")
    return found


def run(*command: str | Path, **options: Any) -> str:
    """The command's stdout; what it says on stderr goes to the terminal."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, **options)
    if done.returncode != 0:
        raise ImageTestError(f"{' '.join(map(str, command[:6]))} … ended with {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout.strip()


def buildah(*words: str | Path) -> str:
    return run("buildah", "--root", WORK / "store", "--runroot", WORK / "run", "--storage-driver", "vfs", *words)


def base_image() -> str:
    """The name of the base: the one given, or one made with debootstrap and kept for the next time."""
    if BASE:
        return BASE
    name = f"localhost/parrotgate-base:{SUITE}"
    if name in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        return name
    stdout.print(f"==> debootstrap {SUITE}")
    folder = WORK / "base"
    shutil.rmtree(folder, ignore_errors=True)
    run(
        "debootstrap",
        "--variant=minbase",
        SUITE,
        folder,
        MIRROR,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    shutil.rmtree(folder / "var/cache/apt/archives", ignore_errors=True)
    run("tar", "-C", folder, "-cf", WORK / "base.tar", ".")
    container = buildah("from", "scratch")
    buildah("add", "-q", container, WORK / "base.tar", "/")
    buildah("commit", "-q", container, name)
    buildah("rm", container)
    (WORK / "base.tar").unlink()
    shutil.rmtree(folder)
    return name


def secrets() -> list[str]:
    """This machine's way to the package index, as secrets of the build: they end in no layer."""
    files = {
        "pip_conf": os.environ.get("PIP_CONFIG_FILE") or "/etc/pip.conf",
        "ca_bundle": os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt",
    }
    return [
        word for name, file in files.items() if Path(file).is_file() for word in ("--secret", f"id={name},src={file}")
    ]


def build(base: str) -> dict[str, Any]:
    """Build the image; returns what it says of itself, with ``bytes`` and ``base_bytes``."""
    stdout.print(f"==> buildah bud -f deploy/Dockerfile.cpu --build-arg BASE={base}")
    started = time.monotonic()
    log = buildah(
        "bud", "--isolation", "chroot", "--format", "docker", "--build-arg", f"BASE={base}", *secrets(),
        "-f", ROOT / "deploy/Dockerfile.cpu", "-t", TAG, ROOT,
    )  # fmt: skip
    (WORK / "build.log").write_text(log)
    facts = json.loads(buildah("inspect", "--type", "image", TAG))
    return {**facts["Docker"], "seconds": time.monotonic() - started, "bytes": size(TAG), "base_bytes": size(base)}


def size(image: str) -> int:
    """Bytes of the image's files, as they lie unpacked."""
    with mounted(image) as root:
        return int(run("du", "-sb", root).split()[0])


@contextlib.contextmanager
def mounted(image: str) -> Iterator[Path]:
    """A throw-away container's root."""
    container = buildah("from", "--pull-never", image) if image.startswith("localhost/") else buildah("from", image)
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("umount", container)
        buildah("rm", container)


LOCKED = """
set -e
mount --bind "$1" "$1"
for there in proc sys dev; do mount --rbind "/$there" "$1/$there"; done
mount --bind "$2" "$1/site"; mount -o remount,bind,ro "$1/site"
mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev,noexec tmpfs "$1/tmp"
mount -o remount,bind,ro "$1"
root=$1; user=$3; group=$4; shift 4
exec chroot "$root" setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs \
  --bounding-set=-all --inh-caps=-all env -C /site "$@"
"""


def locked(root: Path, site: Path, image: dict[str, Any], words: list[str], **settings: str) -> list[str]:
    """The command line that runs ``words`` in the image as compose.yaml does, with the image's user and environment."""
    user, group = image["config"]["User"].split(":")
    environment = [*image["config"]["Env"], *(f"{name}={value}" for name, value in settings.items())]
    shell = ["unshare", "--mount", "sh", "-c", LOCKED, "sh", str(root), str(site), user, group]
    return [*shell, "-i", *environment, *words]


def make_site(folder: Path) -> Path:
    """Configuration, networks, password and a gate fitted here, for the user of the image alone."""
    site = folder / "site"
    site.mkdir()
    for name in ("mobilenet_v2_features", "mobilenet_v2_inat_birds"):
        for file in (SHARED / "models").glob(f"{name}.[!t]*"):
            shutil.copy(file, site / file.name)
    stdout.print("==> calibrate fit")
    pictures = SHARED / "images"
    negatives = [word for name in ("other_birds", "objects") for word in ("--negatives", pictures / name)]
    fit = ["-m", "calibrate", "fit", "--model", site / "mobilenet_v2_features.onnx"]
    run(
        sys.executable,
        *fit,
        "--positives",
        pictures / "parrots",
        *negatives,
        "--out",
        site / "parrots.gate.npz",
        cwd=ROOT,
    )
    (site / "edge.yaml").write_text(
        "worker: box-1\nfeatures: {model: mobilenet_v2_features.onnx}\ngate: {file: parrots.gate.npz}\n"
        "species: {model: mobilenet_v2_inat_birds.onnx}\nmqtt: {username: worker, password_file: worker_password}\n"
    )
    (site / "worker_password").write_text(PASSWORDS["worker"] + "\n")
    for path in (site, *site.iterdir()):
        path.chmod(0o500 if path.is_dir() else 0o400)
        os.chown(path, 10001, 10001)
    return site


def wait_until_ready(worker: subprocess.Popen[bytes], port: int) -> float:
    """Seconds until /readyz answers 200."""
    started = time.monotonic()
    while worker.poll() is None and time.monotonic() < started + READY_S:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
            return time.monotonic() - started
        time.sleep(0.1)
    raise ImageTestError(f"the worker was not ready within {READY_S:.0f} s (exit code {worker.poll()})")


def judge(broker: ShippedBroker) -> dict[str, Any]:
    """Publish the macaw as the camera ``feeder``; the verdict that the user ``viewer`` sees."""

    def client(name: str, user: str) -> list[str]:
        return [f"mosquitto_{name}", "-h", "127.0.0.1", "-p", str(broker.port), "-u", user, "-P", PASSWORDS[user]]

    watch = [*client("sub", "viewer"), "-t", "cameras/feeder/verdict", "-C", "1", "-W", "30"]
    with subprocess.Popen(watch, stdout=subprocess.PIPE) as watcher:
        time.sleep(1)
        photo = SHARED / "images/scarlet_macaw.jpg"
        run(*client("pub", "feeder"), "-q", "1", "-t", "cameras/feeder/frame", "-f", photo)
        seen, _ = watcher.communicate(timeout=40)
    if not seen:
        raise ImageTestError("no verdict came within 30 s")
    verdict: dict[str, Any] = json.loads(seen)
    return verdict


def decoders(pid: int) -> str:
    """The worker's decoder processes, and that they hold no right."""
    found = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    commands = [Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") for child in found]
    decoding = [child for child, command in zip(found, commands, strict=True) if b"edge.decode_child" in command]
    if not decoding:
        raise ImageTestError(f"no picture is decoded in a process of its own; the worker has {commands}")
    for child in decoding:
        status = Path(f"/proc/{child}/status").read_text()
        if "NoNewPrivs:\t1" not in status or "CapEff:\t0000000000000000" not in status:
            raise ImageTestError(f"a decoder process may do more than it should:\n{status}")
    return f"{len(decoding)}, no capability, no new privileges"


def try_image(image: dict[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    """Run the image as compose does; yields what was seen, line by line."""
    site, port = make_site(folder), free_port()
    broker = ShippedBroker(folder / "broker")
    broker.start()
    settings = {"EDGE_MQTT__URL": f"mqtt://127.0.0.1:{broker.port}", "EDGE_STATUS__PORT": str(port)}
    config = image["config"]
    with mounted(TAG) as root:
        write = locked(root, site, image, ["python3", "-c", "open('/opt/parrotgate/x', 'w')"])
        refused = subprocess.run(write, capture_output=True, text=True, check=False).stderr
        if "Read-only file system" not in refused:
            raise ImageTestError(f"the root could be written to: {refused}")
        yield "root, capabilities", "read-only, none; user " + config["User"]
        run(*locked(root, site, image, ["edge", "check", "--config", "/site/edge.yaml"], **settings))
        yield "edge check", "passed"
        worker = subprocess.Popen(locked(root, site, image, [*config["Entrypoint"], *config["Cmd"]], **settings))
        try:
            yield "start to ready", f"{wait_until_ready(worker, port):.1f} s"
            probe = [word.replace("8088", str(port)) for word in config["Healthcheck"]["Test"][1:]]
            run(*locked(root, site, image, probe))
            yield "HEALTHCHECK", "passed"
            verdict = judge(broker)
            label = (verdict["species"] or {}).get("label")
            yield "scarlet_macaw.jpg", f"{verdict['verdict']}, p = {verdict['probability']:.3f}, {label}"
            if verdict["verdict"] != "positive" or label != "Ara macao (Scarlet Macaw)":
                raise ImageTestError(f"expected a positive Ara macao (Scarlet Macaw), got {verdict}")
            yield "decoder processes", decoders(worker.pid)
            worker.send_signal(signal.SIGTERM)
            yield "SIGTERM", f"ended with {worker.wait(30)}"
            if worker.returncode != 0:
                raise ImageTestError("SIGTERM should end the worker with 0")
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
            broker.kill()


def main() -> int:
    if lacks := missing():
        stderr.print("make image-test cannot run here:", *lacks, sep="\n  ", soft_wrap=True)
        return 1
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        image = build(base_image())
        own = image["bytes"] - image["base_bytes"]
        stdout.print(f"{'image':<20} {image['bytes'] / 1e6:.0f} MB unpacked, {own / 1e6:.0f} MB above its base")
        stdout.print(f"{'built in':<20} {image['seconds']:.0f} s")
        with tempfile.TemporaryDirectory() as folder:
            for what, seen in try_image(image, Path(folder)):
                stdout.print(f"{what:<20} {seen}", soft_wrap=True)
    except ImageTestError as failure:
        stderr.print(f"image-test: {failure}", markup=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

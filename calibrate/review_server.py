"""The review page's server, on loopback alone: questions and pictures out, labels in.

It shares guard and headers with the status page (``edge.web``). A label is taken only as JSON from the page itself:
a page from elsewhere can neither send that type nor pass as this origin.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calibrate.pictures import thumbnail
from calibrate.review_labels import Label, LabelFile
from calibrate.review_queue import Candidate, Item
from edge.gate import Gate
from edge.web import Guard, page_routes
from engines import UsageError

MAX_BODY = 64 * 1024
SIDES = {"small": 160, "large": 1280}
NO_STORE = {"Cache-Control": "no-store"}


def create_review(gate: Gate, queue: Sequence[Item], labels: LabelFile, command: str) -> Starlette:
    """The application that asks about ``queue`` and puts answers into ``labels``; ``command`` is what comes after."""
    endpoints = _Endpoints(gate, queue, labels, command)
    app = Starlette(
        routes=[
            Route("/api/queue", endpoints.queue),
            Route("/api/pictures/{picture:int}/{size}", endpoints.picture),
            Route("/api/labels", endpoints.label, methods=["POST"]),
            *page_routes(files("calibrate") / "review_page"),
        ]
    )
    app.router.redirect_slashes = False
    app.add_middleware(Guard)
    return app


def known_families(gate: Gate, labels: Iterable[Label]) -> list[dict[str, Any]]:
    """Families to choose from: what is accepted first, then the folders of negatives, then those named on the page."""
    training = gate.manifest.training
    families: dict[str, bool] = {gate.manifest.positive: True}
    families |= {name.partition("/")[0]: False for name in training.negatives}
    for label in labels:
        if label.family is not None:
            families.setdefault(label.family, label.positive)
    return [{"name": name, "positive": positive} for name, positive in families.items()]


class _Endpoints:
    def __init__(self, gate: Gate, queue: Sequence[Item], labels: LabelFile, command: str) -> None:
        self._gate = gate
        self._queue = queue
        self._labels = labels
        self._command = command
        self._pictures: list[Candidate] = [picture for item in queue for picture in item.pictures]

    async def queue(self, _: Request) -> Response:
        number = iter(range(len(self._pictures)))
        items = [
            {"why": item.why, "pictures": [self._shown(next(number), picture) for picture in item.pictures]}
            for item in self._queue
        ]
        manifest = self._gate.manifest
        content = {
            "gate": manifest.name,
            "threshold": self._gate.threshold,
            "by": manifest.decision.by,
            "families": known_families(self._gate, self._labels.labels.values()),
            "items": items,
            "command": self._command,
        }
        return JSONResponse(content, headers=NO_STORE)

    async def picture(self, request: Request) -> Response:
        number, side = request.path_params["picture"], SIDES.get(request.path_params["size"])
        if side is None or number >= len(self._pictures):
            return _refused("no such picture", 404)
        data = await run_in_threadpool(thumbnail, self._pictures[number].path, side, 86)
        if data is None:
            return _refused("the picture can no longer be read", 404)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})

    async def label(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json" or not _same_origin(request):
            return _refused("labels come as JSON from the review page alone", 403)
        try:
            wish = json.loads(await _body(request))
            pictures = [self._pictures[_index(number)] for number in wish["pictures"]]
            if wish.get("take_back"):
                self._labels.take_back(pictures)
            else:
                family = None if wish["family"] is None else str(wish["family"])
                self._labels.give(pictures, family, positive=bool(wish["positive"]))
        except UsageError as error:
            return _refused(str(error), 422)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return _refused("a label wants pictures, family and positive", 400)
        families = known_families(self._gate, self._labels.labels.values())
        return JSONResponse({"saved": len(pictures), "families": families}, headers=NO_STORE)

    def _shown(self, number: int, picture: Candidate) -> dict[str, Any]:
        label = self._labels.labels.get(picture.digest)
        return {
            "number": number,
            "name": picture.path.name,
            "folder": str(picture.path.parent),
            "decisive": picture.decisive,
            "accepted": picture.accepted,
            "family": picture.family,
            "given": None if label is None else {"family": label.family, "positive": label.positive},
        }


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ValueError("too long")
    return body


def _index(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError("no picture's number")
    return number


def _same_origin(request: Request) -> bool:
    origin = request.headers.get("origin")
    return origin is None or origin == f"http://{request.headers.get('host')}"


def _refused(sentence: str, status: int) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, headers=NO_STORE)

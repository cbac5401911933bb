"""A detector behind HTTP: a page to try it on, and its detections as JSON. It needs `det-models[serve]`."""

import asyncio
import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.requests import ClientDisconnect

from det_coco import DataError
from det_coco.images import header_size
from det_models.batching import Batcher
from det_models.detections import Detections
from det_models.predictor import Predictor, kind_of

__all__ = ["Limits", "application"]

Score = Annotated[float, Query(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What requests may take.

    Attributes:
        megabytes: Of a picture's file.
        megapixels: Of a picture.
        seconds: From the beginning of a request to its answer.
        waiting: Requests at a time; those beyond are refused.
    """

    megabytes: float = 20.0
    megapixels: float = 50.0
    seconds: float = 60.0
    waiting: int = 256


def application(detector: Predictor, *, batch: int = 4, wait: float = 0.005, limits: Limits | None = None) -> FastAPI:
    """An ASGI application.

    `GET /` is the page, `GET /detector` says what is served. `POST /detect` and `POST /coco` take the file of a picture
    as their body and give its detections: names, corners and masks, or the rows of a COCO results file. Errors are JSON
    too, `{"detail": "What is wrong."}`.

    Args:
        detector: What is shown the pictures.
        batch: Pictures of concurrent requests that it is shown at a time.
        wait: Seconds that the first of them waits for others.
        limits: What requests may take.
    """
    allowed, busy = limits or Limits(), 0

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncGenerator[None]:
        app.state.batcher = Batcher(detector, batch, wait)
        yield
        await asyncio.to_thread(app.state.batcher.close)

    # FastAPI's own pages load scripts from elsewhere.
    app = FastAPI(title="det-models", lifespan=running, docs_url=None, redoc_url=None)
    app.add_exception_handler(RequestValidationError, _wrong_argument)
    app.add_exception_handler(Exception, _failure)
    page = resources.files("det_models").joinpath("server.html").read_text("utf-8")

    async def look_at(request: Request, min_score: float) -> Detections:
        nonlocal busy
        if busy >= allowed.waiting:
            raise HTTPException(503, f"{busy} requests are waiting. Come back in a second.", {"Retry-After": "1"})
        busy += 1
        try:
            async with asyncio.timeout(allowed.seconds):
                data = await _picture(request, allowed)
                found = await asyncio.wrap_future(app.state.batcher.detect(data))
        except TimeoutError:
            raise HTTPException(504, f"There was no answer within {allowed.seconds:g} seconds.") from None
        except ClientDisconnect:
            raise HTTPException(400, "The picture broke off.") from None
        except DataError as error:
            raise HTTPException(400, str(error)) from None
        finally:
            busy -= 1
        return found[found.scores >= min_score]

    @app.get("/")
    async def show() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/detector")
    async def about() -> dict[str, Any]:
        return {"name": kind_of(detector.config), "tasks": detector.tasks, "categories": detector.categories}

    @app.post("/detect")
    async def detect(request: Request, min_score: Score = 0.0) -> JSONResponse:
        found = await look_at(request, min_score)
        detections = [
            {"name": str(name), "box": box, **row}
            for name, box, row in zip(found.names, found.boxes.tolist(), found.to_coco(0), strict=True)
        ]
        for row in detections:
            del row["image_id"], row["bbox"]
        return JSONResponse({"height": found.size[0], "width": found.size[1], "detections": detections})

    @app.post("/coco")
    async def coco(request: Request, image_id: int, min_score: Score = 0.0) -> JSONResponse:
        return JSONResponse((await look_at(request, min_score)).to_coco(image_id))

    return app


async def _picture(request: Request, limits: Limits) -> bytes:
    """The body of a request, which is no larger than a picture may be."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limits.megabytes * 1e6:
            raise HTTPException(413, f"A file may have {limits.megabytes:g} megabytes, and this one has more.")
    try:
        height, width = header_size(io.BytesIO(data))
    except Exception:
        return bytes(data)  # decoding it says what is wrong
    if height * width > limits.megapixels * 1e6:
        size = f"{width} x {height}"
        raise HTTPException(413, f"A picture may have {limits.megapixels:g} megapixels, and this one has {size}.")
    return bytes(data)


async def _wrong_argument(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    assert isinstance(error, RequestValidationError)
    (_, *place), what, given = (error.errors()[0].get(key, "") for key in ("loc", "msg", "input"))
    return JSONResponse({"detail": f"{'.'.join(map(str, place))}: {what}, got {given!r}."}, 422)


async def _failure(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    return JSONResponse({"detail": f"The detector failed, which the server's log tells more of: {error}"}, 500)

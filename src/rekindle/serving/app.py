"""The web application of `rekindle serve`: one page, and two addresses that answer for one picture: what it is, and where the network looked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rekindle.errors import UserError
from rekindle.report.template import render
from rekindle.run import Run

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LARGEST = 64 * 2**20  # Bytes of one uploaded picture; a raw scan of 20 megapixels has 60 million.
TOP_K = 3
EDGE = 320  # Pixels of a heat map.
LOCAL = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' blob: data:; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
}  # fmt: skip


def make_app(run: Run, hosts: tuple[str, ...] = LOCAL) -> "Starlette":
    """The application of one run, which any ASGI server can serve.

    `GET /` is the page. `POST /predict` takes the bytes of one picture file as `application/octet-stream`, which a page of another site
    cannot send without asking, and answers with JSON: `classes` and `confidences`, the best first; `unsure`, null where the run cannot tell;
    `error`, empty if all went well. `POST /explain` takes the same, and answers with `class`, the best; `heat`, a data: address of the
    picture with a heat map of what speaks for that class; `error`.

    Args:
        run: A finished run.
        hosts: Names under which it may be asked, so that no foreign name that leads here is answered; ("*",) for all.

    Returns:
        An ASGI application.

    Raises:
        UserError: If Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import HTMLResponse
        from starlette.responses import Response as Plain
        from starlette.routing import Route
    except ImportError:
        raise UserError("rekindle serve needs the packages starlette and uvicorn; pip install 'rekindle[serve]'.") from None
    answers = Answers(run)
    page, script = _page(run, answers.unsure), (Path(__file__).parent / "page.js").read_text("utf-8")

    async def show(_: "Request") -> "Response":
        return HTMLResponse(page, headers=HEADERS)

    async def code(_: "Request") -> "Response":
        return Plain(script, media_type="text/javascript", headers=HEADERS)

    posts = [
        Route(f"/{name}", _asking(ask), methods=["POST"]) for name, ask in (("predict", answers.predict), ("explain", answers.explain))
    ]
    routes = [Route("/", show), Route("/page.js", code), *posts]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))])


class Answers:
    """What a run says of the bytes of a picture file, one at a time, as `Run.predict` says it.

    Args:
        run: A finished run.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._one_by_one = run, threading.Lock()
        self.unsure = can_be_unsure(run)

    def predict(self, picture: bytes) -> dict[str, Any]:
        """JSON of `POST /predict`.

        Returns:
            Plain values: classes, confidences, and whether the picture is unsure.
        """
        with self._held(picture) as path:
            (row,) = self._run.predict([path], TOP_K, unsure=self.unsure)
        return {"classes": row.classes, "confidences": row.confidences, "unsure": row.unsure, "error": row.error}

    def explain(self, picture: bytes) -> dict[str, Any]:
        """JSON of `POST /explain`.

        Returns:
            Plain values: the address of a picture with its heat map.
        """
        from rekindle.report.heat_cards import heat_picture

        with self._held(picture) as path:
            (row,) = self._run.predict([path])
            if row.error:
                return {"class": "", "heat": "", "error": row.error}
            try:
                return {"class": row.classes[0], "heat": heat_picture(self._run, path, row.classes[0], EDGE), "error": ""}
            except UserError as error:
                return {"class": row.classes[0], "heat": "", "error": str(error)}

    @contextmanager
    def _held(self, picture: bytes) -> Iterator[Path]:
        """A picture as a file, while no other is looked at."""
        with self._one_by_one, TemporaryDirectory(prefix="rekindle-") as folder:
            path = Path(folder) / "picture"
            path.write_bytes(picture)
            yield path


def can_be_unsure(run: Run) -> bool:
    """Whether a run has validation pictures to set a threshold by.

    Returns:
        True where it has.
    """
    try:
        return len(run.familiarity.own) > 0
    except UserError:
        return False


def _asking(ask: Callable[[bytes], dict[str, Any]]) -> Callable[["Request"], Any]:
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import Response

    def answer(content: dict[str, Any], status: int = 200) -> Response:
        return Response(json.dumps(content, ensure_ascii=False), status, HEADERS, "application/json")

    async def asked(request: "Request") -> "Response":
        if request.headers.get("content-type") != "application/octet-stream":
            return answer({"error": "send the bytes of one picture file as application/octet-stream."}, 415)
        picture = bytearray()
        async for part in request.stream():
            picture += part
            if len(picture) > LARGEST:
                return answer({"error": f"the file has more than {LARGEST >> 20} MiB; make it smaller, or use rekindle predict."}, 413)
        found = await run_in_threadpool(ask, bytes(picture))
        return answer(found, 422 if found["error"] else 200)

    return asked


def _page(run: Run, unsure: bool) -> str:
    module, recipe = run.model
    content = {
        "title": run.folder.resolve().name, "classes": recipe["classes"], "unsure": unsure, "largest": LARGEST,
        "weights": sum(parameter.numel() for parameter in module.parameters()),
    }  # fmt: skip
    return render("serving/page.html.j2", content)

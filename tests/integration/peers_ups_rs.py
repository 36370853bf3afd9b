"""A small UPS-RS server on loopback: creates, retrieves and updates workitems, and keeps a log."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

STATE, PRIORITY = "00741000", "00741200"
Item = dict[str, Any]


class UpsRsServer:
    """Workitems by UID. `faults` are answered first, one a request: (status, headers, body)."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.faults: list[tuple[int, dict[str, str], bytes]] = []
        self.own_uids = False
        self.claim_after_look = False
        self.deaf = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_words: object) -> None:
                pass

            def do_GET(self) -> None:
                server.serve(self, None)

            def do_POST(self) -> None:
                server.serve(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/dicom-web"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    def __enter__(self) -> UpsRsServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def put_state(self, state: str) -> None:
        for item in self.items.values():
            item[STATE] = {"vr": "CS", "Value": [state]}

    def serve(self, line: BaseHTTPRequestHandler, body: Any) -> None:
        self.requests.append((line.command, line.path, body))
        if self.faults:
            self._say(line, *self.faults.pop(0))
            return
        parts = urlsplit(line.path)
        headers: dict[str, str]
        uid = parts.path.removeprefix("/dicom-web/workitems").strip("/")
        if not uid and body is None:
            status, headers, said = 204, {}, b""
        elif not uid:
            status, headers, said = self._create(parts.query, body[0])
        elif uid not in self.items:
            status, headers, said = 404, {}, b""
        elif body is None:
            status, headers, said = 200, {}, json.dumps([self.items[uid]]).encode()
            if self.claim_after_look:
                self.put_state("IN PROGRESS")
        elif self.items[uid][STATE]["Value"] != ["SCHEDULED"]:
            status, headers, said = 400, {}, b""
        else:
            self.items[uid] |= body[0]
            status, headers, said = 200, {}, b""
        if self.deaf:
            self.deaf = False
            line.connection.close()
            return
        self._say(line, status, headers, said)

    def _create(self, query: str, item: Item) -> tuple[int, dict[str, str], bytes]:
        found = re.fullmatch(r"(?:(?:workitem|AffectedSOPInstanceUID)=)?([0-9.]+)", query)
        uid = f"2.25.{len(self.items) + 1}" if self.own_uids or found is None else found[1]
        if uid in self.items:
            return 409, {}, b""
        self.items[uid] = item
        return 201, {"Location": f"{self.url}/workitems/{uid}"}, b""

    def _say(self, line: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        line.send_response(status)
        for name, value in headers.items():
            line.send_header(name, value)
        line.send_header("Content-Length", str(len(body)))
        line.end_headers()
        line.wfile.write(body)

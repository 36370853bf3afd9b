"""A small FHIR R4 server on loopback: transactions with conditional create and update, search by identifier."""

from __future__ import annotations

import json
import threading
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

Resource = dict[str, Any]


class FhirServer:
    """Keeps resources in memory. `faults` are answered first, one a request: (status, headers, body)."""

    def __init__(self) -> None:
        self.resources: list[Resource] = []
        self.requests: list[tuple[str, str, Any, dict[str, str]]] = []
        self.faults: list[tuple[int, dict[str, str], bytes]] = []
        self.deaf = False  # takes the request, works it off and breaks the line before the answer
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_words: object) -> None:
                pass

            def do_GET(self) -> None:
                server.serve(self, None)

            def do_POST(self) -> None:
                server.serve(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/fhir/R4"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    def __enter__(self) -> FhirServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def of(self, kind: str) -> list[Resource]:
        return [one for one in self.resources if one["resourceType"] == kind]

    def serve(self, line: BaseHTTPRequestHandler, body: Any) -> None:
        with self.lock:
            self.requests.append((line.command, line.path, body, dict(line.headers)))
            if self.faults:
                self._say(line, *self.faults.pop(0))
                return
            parts = urlsplit(line.path)
            if line.command == "POST":
                status, said = self._transaction(body)
            elif parts.path.endswith("/metadata"):
                status, said = 200, {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}
            else:
                found = self._search(parts.path.rsplit("/", 1)[1], parse_qs(parts.query)["identifier"][0])
                status, said = 200, {"resourceType": "Bundle", "entry": [{"resource": one} for one in found]}
            if self.deaf:
                self.deaf = False
                line.close_connection = True
                line.connection.close()
                return
            self._say(line, status, {"Content-Type": "application/fhir+json"}, json.dumps(said).encode())

    def _say(self, line: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        line.send_response(status)
        for name, value in headers.items():
            line.send_header(name, value)
        line.send_header("Content-Length", str(len(body)))
        line.end_headers()
        line.wfile.write(body)

    def _search(self, kind: str, token: str) -> list[Resource]:
        system, value = token.split("|")
        wanted = {"system": system, "value": value}
        return [one for one in self.of(kind) if any(wanted.items() <= named.items() for named in one["identifier"])]

    def _transaction(self, bundle: Any) -> tuple[int, Resource]:
        before, answers = deepcopy(self.resources), []
        for entry in bundle["entry"]:
            status = self._entry(entry["resource"], entry["request"])
            if status >= 400:
                self.resources = before  # all or nothing
                return status, {
                    "resourceType": "OperationOutcome",
                    "issue": [{"severity": "error", "code": "conflict"}],
                }
            answers.append({"response": {"status": str(status)}})
        return 200, {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}

    def _entry(self, resource: Resource, request: Resource) -> int:
        kind, _, query = request["url"].partition("?")
        if request["method"] == "POST":
            if self._search(kind, request["ifNoneExist"].partition("=")[2]):
                return 200
            self.resources.append({**resource, "id": f"r{len(self.resources)}", "meta": {"versionId": "1"}})
            return 201
        kind, _, number = kind.partition("/")
        there = (
            self._search(kind, query.partition("=")[2]) if query else [r for r in self.of(kind) if r["id"] == number]
        )
        if not there:
            self.resources.append({**resource, "id": f"r{len(self.resources)}", "meta": {"versionId": "1"}})
            return 201
        version = there[0]["meta"]["versionId"]
        if request.get("ifMatch", f'W/"{version}"') != f'W/"{version}"':
            return 412
        changed = {**resource, "id": there[0]["id"], "meta": {"versionId": str(int(version) + 1)}}
        self.resources[self.resources.index(there[0])] = changed
        return 200

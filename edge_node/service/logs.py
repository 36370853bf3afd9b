"""Logs that cannot say who the patient is.

Every line, ours or a library's, passes one gate: fields that are not on the list of words we use are dropped, text of
foreign libraries is replaced by the place it was written at, and of exceptions only the type and the lines of our own
code remain (pydicom's exception text prints values, pynetdicom's log text prints data sets).
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

from edge_node.domain.errors import EdgeNodeError

DROPPED = "[dropped]"
PACKAGE = Path(__file__).resolve().parent.parent

# What a line may carry: words of the node and of its neighbours, never of a patient. UIDs are not here on purpose:
# nothing in a UID tells whether it is the hospital's or ours.
FIELDS = frozenset(
    word
    for line in (
        "event level timestamp logger role node worker pid at",
        "code message hint reason study revision step state outcome action",
        "exception_type caused_by frames category library",
        "peer trainer host port address ae_title calling_ae called_ae destination",
        "modality modalities sop_class transfer_syntax recipe sha256",
        "model variant provider device threads verdict tier priority mode",
        "status http_status exit_code signal process attempt attempts job",
        "count instances objects series studies associations batch queued pending done dead delivered withheld",
        "rejected quarantined duplicates released discarded purged expired reopened settled held",
        "bytes seconds version schema config_file",
    )
    for word in line.split()
)
_UNITS = ("_s", "_ms", "_hours", "_days", "_bytes", "_mb", "_count", "_percent")
_LONGEST = 2000  # characters of one value
_TAMED = ("pynetdicom", "pydicom", "highdicom", "httpx", "httpcore", "apscheduler", "sqlalchemy", "PIL", "deid")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(
    format: Literal["auto", "json", "text"] = "auto",
    level: str = "info",
    role: str = "",
    stream: TextIO | None = None,
    *,
    node: str = "",
) -> None:
    """Set up logging of this process, replacing what was set up before.

    `format`: json for machines, text for people, auto: text on a terminal. `level`: debug, info, warning or error.
    `role` and `node` stand in every line. `stream`: default standard error. Uncaught exceptions of the main thread,
    of threads and of destructors go the same way.
    """
    out = sys.stderr if stream is None else stream
    text = format == "text" or (format == "auto" and out.isatty())
    gate = Gate(role=role, node=node)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=lambda *_: None)
        if text
        else structlog.processors.JSONRenderer(ensure_ascii=False, sort_keys=False)
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            # `gate` needs the record that remove_processors_meta takes away
            processors=[gate, structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if getattr(old, "edge_node", False):
            root.removeHandler(old)
    handler.edge_node = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(_LEVELS[level])
    logging.raiseExceptions = False  # its own error report prints the arguments of the message
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    for name in _TAMED:
        logging.getLogger(name).setLevel(max(logging.WARNING, _LEVELS[level]))
    if "pynetdicom" in sys.modules:
        silence_identifiers()
    _catch_the_uncaught()


def get(name: str) -> Any:
    """A structlog logger; `name` is the module's `__name__`. Events are constant text, what varies goes in fields."""
    return structlog.stdlib.get_logger(name)


def silence_identifiers() -> None:
    """Stop pynetdicom from logging the data sets of requests and responses; for the roles that speak DICOM."""
    settings: Any = importlib.import_module("pynetdicom._config")
    settings.LOG_REQUEST_IDENTIFIERS = False
    settings.LOG_RESPONSE_IDENTIFIERS = False
    settings.LOG_HANDLER_LEVEL = "none"


def guarded(target: Callable[..., object], *args: object, **kwargs: object) -> None:
    """Run `target` as the body of a child process: what it raises is logged by type and exits with the right code.

    multiprocessing prints the traceback of a child itself, text and all, and asks no hook; so nothing may reach it.
    """
    try:
        target(*args, **kwargs)
    except Exception as error:
        get(__name__).critical("process failed", exc_info=True)
        raise SystemExit(int(getattr(error, "exit_code", 1))) from None


def describe_exception(error: BaseException) -> dict[str, object]:
    """What may be told of an exception: its type, those of its causes, the lines of our own code, our own words.

    Keys: `exception_type`, `frames` (outermost first, `edge_node/deid/plan.py:88`), `caused_by` (if any) and for our
    own errors `code`, `message`, `hint` and `study`, which carry no identity by contract.
    """
    told: dict[str, object] = {
        "exception_type": _type_name(error),
        "frames": list(_own_frames(error.__traceback__)),
    }
    causes = []
    seen = {id(error)}
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        causes.append(_type_name(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    if causes:
        told["caused_by"] = causes
    if isinstance(error, EdgeNodeError):
        told |= {"code": error.code, "message": error.message}
        told |= {"hint": error.hint} if error.hint else {}
        told |= {"study": error.study} if error.study else {}
    return told


class Gate:
    """The processor every line passes last before it is rendered."""

    def __init__(self, *, role: str, node: str) -> None:
        self._always = {key: value for key, value in {"role": role, "node": node}.items() if value}

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:  # noqa: ARG002  structlog's signature
        record: logging.LogRecord | None = event.get("_record")
        passed: EventDict = dict(self._always)
        if record is not None and event.get("_from_structlog") is False and not _is_ours(record.name):
            event = self._without_words(event, record)
        for key, value in event.items():
            if key in ("_record", "_from_structlog"):
                passed[key] = value
            elif key == "exc_info":
                error = _exception_of(value)
                if error is not None:
                    passed.update((k, v) for k, v in describe_exception(error).items() if k not in event)
            elif key not in ("stack", "stack_info"):
                passed[key] = passable(key, value)
        return passed

    @staticmethod
    def _without_words(event: EventDict, record: logging.LogRecord) -> EventDict:
        kept = {
            key: event[key] for key in ("level", "timestamp", "exc_info", "_record", "_from_structlog") if key in event
        }
        return {
            **kept,
            "event": "library message",
            "library": record.name,
            "at": f"{_place(record.pathname)}:{record.lineno}",
        }


def passable(key: str, value: object) -> object:
    """`value` as the gate lets it pass under the name `key`, or DROPPED."""
    if key in FIELDS:
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(item) for item in value]
        return _plain(value)
    if key.endswith(_UNITS) and isinstance(value, int | float):
        return value
    return DROPPED


def _plain(value: object) -> object:
    if isinstance(value, str) and len(value) <= _LONGEST:
        # a peer chooses its AE title: it must not steer the terminal that shows it
        return "".join(c if c.isprintable() or c == "\n" else "?" for c in value)
    return value if value is None or isinstance(value, int | float) else DROPPED


def _is_ours(name: str) -> bool:
    return name == "edge_node" or name.startswith("edge_node.")


def _exception_of(value: object) -> BaseException | None:
    if isinstance(value, BaseException):
        return value
    if isinstance(value, tuple):
        return value[1] if len(value) > 1 and isinstance(value[1], BaseException) else None
    return sys.exc_info()[1] if value else None


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _own_frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE):
            yield f"{_place(str(file))}:{trace.tb_lineno}"
        trace = trace.tb_next


def _place(file: str) -> str:
    """`file` from its package on: `edge_node/deid/plan.py`, `pydicom/valuerep.py`; else its last two parts."""
    path = Path(file)
    if path.is_relative_to(PACKAGE):
        return str(path.relative_to(PACKAGE.parent))
    parts = path.parts
    for marker in ("site-packages", "dist-packages"):
        if marker in parts:
            return "/".join(parts[parts.index(marker) + 1 :])
    return "/".join(parts[-2:])


def _catch_the_uncaught() -> None:
    log = get("edge_node")

    def of_main(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            log.critical("uncaught exception", exc_info=(kind, error, trace))

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            log.critical("uncaught exception in a thread", exc_info=args.exc_value)

    def of_destructor(args: sys.UnraisableHookArgs) -> None:
        if args.exc_value is not None:
            log.error("exception in a destructor", exc_info=args.exc_value)

    def of_warning(
        message: Warning | str,  # noqa: ARG001  its text may carry a value
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,  # noqa: ARG001  signature of warnings.showwarning
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        log.warning("warning", category=category.__name__, at=f"{_place(filename)}:{lineno}")

    sys.excepthook = of_main
    threading.excepthook = of_thread
    sys.unraisablehook = of_destructor
    warnings.showwarning = of_warning

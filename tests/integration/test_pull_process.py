"""The pulling process killed in the middle, and the commands around it, against a real Orthanc."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from edge_node.cli.app import main
from edge_node.config.load import load
from edge_node.domain.study import Role
from edge_node.service.doctor import examine
from edge_node.service.node import open_node
from tests.integration.peers_orthanc import Orthanc, free_port
from tests.integration.puller import PullingNode, fill, uid
from tests.unit.service.site import NEEDLES, Site, needles_in, site

__all__ = ["site"]


class Line:
    """A configuration file for the commands and the process, over the ledger of a receiver in this process."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        modalities = {"node": {"AET": "EDGENODE", "Host": "127.0.0.1", "Port": self.port, "Manufacturer": "Generic"}}
        self.orthanc = Orthanc(folder, ae_title="PACS", modalities=modalities)
        self.orthanc.__enter__()
        for path in fill(folder, dict.fromkeys(range(1, 7), 2)):
            self.orthanc.request("/instances", method="POST", body=path.read_bytes())
        self.config = folder / "edge-node.toml"
        self.config.write_text(
            f"""[node]
data_dir = "{site.config.node.data_dir}"
[storage]
reserve_mb = 16
[receive]
host = "127.0.0.1"
port = {self.port}
[status]
port = 0
[pull]
method = "move"
studies_per_minute = 90
yield_s = 0
[peers.pacs]
ae_title = "PACS"
host = "127.0.0.1"
port = {self.orthanc.dicom_port}
"""
        )
        self.node = PullingNode(site, port=self.port)
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """One call of the command line, in this process: a new one takes seconds to start."""
        out, err = io.StringIO(), io.StringIO()
        command = ["edge-node", "--config", str(self.config), *words]
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", command)
            patch.setattr(sys, "stdin", io.StringIO(given))
            try:
                main()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
        return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())

    def start(self) -> subprocess.Popen[bytes]:
        code = (
            "import sys; from pathlib import Path; from edge_node.config.load import load\n"
            "from edge_node.service.pulling import serve; serve(load(Path(sys.argv[1])).config)"
        )
        with (self.folder / "pull.log").open("ab") as log:
            self.processes.append(
                subprocess.Popen([sys.executable, "-c", code, str(self.config)], stdout=log, stderr=log)
            )
        return self.processes[-1]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)
        self.node.close()
        self.orthanc.__exit__()


@pytest.fixture
def line(site: Site, tmp_path: Path) -> Iterator[Line]:
    one = Line(site, tmp_path)
    yield one
    one.close()


def test_a_job_survives_kill_9_and_brings_every_study_once(line: Line) -> None:
    asked = line.run("--json", "pull", "studies", "-", given="\n".join(uid(number) for number in range(1, 7)))
    told = json.loads(asked.stdout)
    assert told["requests"] == 6, asked.stderr
    process = line.start()
    line.node.until(lambda: line.node.job(told["job"])["done"] >= 2)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert line.node.job(told["job"])["done"] < 6
    last = line.start()
    line.node.until(lambda: line.node.job(told["job"])["state"] != "ACTIVE")
    job = line.node.job(told["job"])
    assert (job["state"], job["done"], job["failed"], job["instances"]) == ("DONE", 6, 0, 12)
    assert list(line.node.studies().values()) == [2] * 6
    last.send_signal(signal.SIGTERM)
    assert last.wait(15) == 0
    log = (line.folder / "pull.log").read_bytes()
    assert not [needle for needle in NEEDLES if needle in log]
    assert needles_in(line.node.config.node.data_dir) == []


def test_the_commands_tell_and_give_up_and_show_no_identity(line: Line) -> None:
    assert line.run("pull", "status").returncode == 0
    done = line.run("pull", "priors", "-", given="PAT-420042\tHOSPITAL\n# a remark\n\n")
    assert done.returncode == 0, done.stderr
    ranged = line.run("--json", "pull", "range", "2024-01-01", "2024-01-31", "--modality", "CT")
    assert json.loads(ranged.stdout)["requests"] == 31
    status = json.loads(line.run("--json", "pull", "status").stdout)
    assert [job["what"] for job in status["jobs"]] == ["2024-01-01 to 2024-01-31, CT", "priors of patients"]
    assert line.run("pull", "cancel", "P12345678").returncode == 2
    cancelled = json.loads(line.run("--json", "pull", "cancel", "all").stdout)
    assert cancelled["cancelled"] == 32
    shown = line.run("pull", "status").stdout
    assert "CANCELLED" in shown
    assert "PAT-420042" not in shown + done.stdout + done.stderr
    line.node.site.take()
    assert needles_in(line.node.config.node.data_dir) == []


@pytest.mark.parametrize(
    ("words", "given", "code"),
    [
        (("studies", "-"), "", "pull.empty-list"),
        (("studies", "-"), "ACC*\n", "pull.bad-line"),
        (("priors", "-"), "A\\B\n", "pull.bad-line"),
        (("studies", "no-such-file"), "", "pull.list-unreadable"),
        (("range", "2026-02-01", "2026-01-01"), "", "pull.bad-range"),
        (("priors", "--study", "NOSUCHSTUDY1"), "", "vault.destroyed"),
        (("status", "PNOSUCH"), "", "pull.unknown-job"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_next_step(
    line: Line, words: tuple[str, ...], given: str, code: str
) -> None:
    done = line.run("--json", "pull", *words, given=given)
    assert done.returncode
    error = json.loads(done.stderr)["error"]
    assert error["code"] == code
    assert error["hint"]


def test_priors_of_a_study_are_found_by_what_the_vault_knows(line: Line, site: Site) -> None:
    from tests.unit.service.site import image

    [receipt] = site.take(image(1, study=1))
    done = line.run("--json", "pull", "priors", "--study", receipt.study_key)
    assert done.returncode == 0, done.stderr
    line.start()
    job = json.loads(done.stdout)["job"]
    line.node.until(lambda: line.node.job(job)["state"] == "DONE")
    assert line.node.job(job)["studies"] == 6


def test_the_doctor_asks_the_archive_under_our_name(line: Line) -> None:
    def found(**changes: Any) -> tuple[str, str]:
        checks = {check.name: check for check in examine(load(line.config, environ={}, flags=changes))}
        return checks["pull"].result, checks["pull"].detail

    assert found()[0] == "ok"
    result, detail = found(**{"pull.destination": "OTHER", "pull.windows": ["22:00-06:00"]})
    assert (result, "22:00-06:00" in detail) == ("warn", True)
    web = {"pull.method": "web", "pull_web.url": f"{line.orthanc.url}/dicom-web"}
    assert found(**web)[0] == "ok"
    assert found(**{"peers.pacs.port": free_port()})[0] == "fail"
    assert found(**{"pull.method": "off"}) == ("ok", "off: nothing is asked for")


def test_without_the_option_nothing_is_asked_for(line: Line) -> None:
    done = line.run("--json", "--set", "pull.method=off", "pull", "studies", "-", given=uid(1))
    assert json.loads(done.stderr)["error"]["code"] == "pull.off"
    node = open_node(line.node.config, Role.DICOM)
    node.database.close()
    assert line.node.site.rows("pull_job") == []


def test_progress_is_followed_to_the_end(line: Line) -> None:
    line.start()
    done = line.run("--json", "pull", "studies", "-", "--wait", given=f"{uid(1)}\n{uid(99)}\n")
    assert done.returncode == 1
    told = json.loads(done.stdout[done.stdout.index("{\n") :])  # the receiver in this process logs before it
    assert (told["done"], told["failed"], told["told"][0]["code"]) == (1, 1, "pull.not-found")

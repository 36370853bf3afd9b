"""Every value knows where it came from, and everything that is wrong is told at once with its place."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest

from edge_node.config import load as module
from edge_node.config.load import ConfigInvalid, Loaded, Origin, load
from edge_node.config.schema import PeerEntry
from edge_node.domain.errors import Stop

PEERS = """
[peers.pacs]
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[peers.ups]
ae_title = "UPS"
host = "127.0.0.1"
port = 105
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "edge-node.toml"


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "DEFAULT_PATH", tmp_path / "absent" / "edge-node.toml")


def _load(
    file: Path, text: str, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> Loaded:
    file.write_text(text, encoding="utf-8")
    return load(file, environ=environ or {}, flags=flags)


def _problems(
    file: Path, text: str, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> list[str]:
    """The problems, with the file's path cut off: `3: [receive] port: …`."""
    with pytest.raises(ConfigInvalid) as caught:
        _load(file, text, environ, flags)
    error = caught.value
    assert (error.code, error.exit_code) == ("config.invalid", 78)
    assert error.message == "\n".join(error.problems)
    return [problem.removeprefix(f"{file}:").strip() for problem in error.problems]


# -- order and origin ---------------------------------------------------------------------------------------------


def test_without_a_file_the_defaults_are_in_force() -> None:
    loaded = load(environ={})
    assert loaded.path is None
    assert loaded.config.consent.source == "deny-all"
    assert loaded.config.worklist.mode == "shadow"
    assert set(loaded.origin.values()) == {Origin("default")}


def test_default_gives_way_to_file_to_environment_to_flag(file: Path) -> None:
    text = "[receive]\nport = 1\nmax_associations = 1\nworkers = 1\n"
    environ = {"EDGE_NODE_RECEIVE__MAX_ASSOCIATIONS": "2", "EDGE_NODE_RECEIVE__WORKERS": "2"}
    loaded = _load(file, text, environ, {"receive.workers": "3"})
    receive = loaded.config.receive
    assert (receive.ae_title, receive.port, receive.max_associations, receive.workers) == ("EDGENODE", 1, 2, 3)
    assert [str(loaded.origin[f"receive.{key}"]) for key in ("ae_title", "port", "max_associations", "workers")] == [
        "default",
        f"{file}:2",
        "EDGE_NODE_RECEIVE__MAX_ASSOCIATIONS",
        "--set receive.workers",
    ]


def test_every_value_has_an_origin(file: Path) -> None:
    loaded = _load(file, PEERS + "[settle]\nquiet_by_modality = { MR = 20 }\n")
    flat = {f"{name}.{key}" for name, table in loaded.config.model_dump().items() for key in table if name != "peers"}
    flat = (flat - {"settle.quiet_by_modality"}) | {"settle.quiet_by_modality.MR"}
    flat |= {f"peers.{peer}.{key}" for peer in ("pacs", "ups") for key in PeerEntry.model_fields}
    assert set(loaded.origin) == flat
    assert loaded.origin["settle.quiet_by_modality.MR"].line == 11


def test_the_file_is_named_by_a_variable_when_no_path_is_given(file: Path) -> None:
    file.write_text("[node]\nname = 'ward'\n")
    loaded = load(environ={"EDGE_NODE_CONFIG": str(file)})
    assert (loaded.path, loaded.config.node.name) == (file, "ward")
    assert load(environ={"EDGE_NODE_CONFIG": ""}).path is None


def test_the_file_in_its_usual_place_is_read_when_it_is_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("[node]\nname = 'ward'\n")
    monkeypatch.setattr(module, "DEFAULT_PATH", file)
    assert load(environ={}).config.node.name == "ward"


@pytest.mark.parametrize(
    ("variable", "text", "dotted", "value"),
    [
        ("RECEIVE__PORT", "104", "receive.port", 104),
        ("RECEIVE__REQUIRE_CALLED_AE_TITLE", "no", "receive.require_called_ae_title", False),
        ("RECEIVE__CALLING_AE_TITLES", "CT1, MR1 ,", "receive.calling_ae_titles", ["CT1", "MR1"]),
        ("RECEIVE__CALLING_AE_TITLES", "", "receive.calling_ae_titles", []),
        ("SETTLE__QUIET_S", "2.5", "settle.quiet_s", 2.5),
        ("SETTLE__QUIET_BY_MODALITY", "CT=3, MR=4", "settle.quiet_by_modality", {"CT": 3.0, "MR": 4.0}),
        ("NODE__NAME", "5", "node.name", "5"),
        ("NODE__KEYS_DIR", "", "node.keys_dir", None),
        ("NODE__KEYS_DIR", "/keys", "node.keys_dir", Path("/keys")),
        ("TRIAGE__PROVIDER", "cpu", "triage.provider", "cpu"),
    ],
)
def test_text_of_a_variable_or_flag_becomes_what_the_option_wants(
    variable: str, text: str, dotted: str, value: object
) -> None:
    section, key = dotted.split(".")
    for loaded in (load(environ={f"EDGE_NODE_{variable}": text}), load(environ={}, flags={dotted: text})):
        assert getattr(getattr(loaded.config, section), key) == value


def test_a_flag_may_be_given_as_a_value(tmp_path: Path) -> None:
    peer = {"ae_title": "P", "host": "h", "port": 1}
    flags = {"receive.calling_ae_titles": ("A", "B"), "node.data_dir": tmp_path, "peers.x": peer}
    loaded = load(environ={}, flags=flags)
    assert loaded.config.receive.calling_ae_titles == ["A", "B"]
    assert loaded.config.node.data_dir == tmp_path
    assert str(loaded.origin["peers.x.port"]) == "--set peers.x"


def test_one_entry_of_a_table_leaves_the_others(file: Path) -> None:
    environ = {"EDGE_NODE_SETTLE__QUIET_BY_MODALITY__CT": "3"}
    loaded = load(environ=environ)
    assert loaded.config.settle.quiet_by_modality == {"CT": 3, "CR": 5, "DX": 5}
    assert str(loaded.origin["settle.quiet_by_modality.CR"]) == "default"
    loaded = _load(file, "[settle.quiet_by_modality]\nMR = 20\n", environ)
    assert loaded.config.settle.quiet_by_modality == {"CT": 3, "MR": 20}


def test_a_peer_can_be_made_and_changed_by_variables(file: Path) -> None:
    made = {f"EDGE_NODE_PEERS__RIS__{key}": value for key, value in {"AE_TITLE": "R", "HOST": "h", "PORT": "1"}.items()}
    text = PEERS.replace("pacs", "main-pacs")
    loaded = _load(file, text, made | {"EDGE_NODE_PEERS__MAIN_PACS__PORT": "4242"})
    assert loaded.config.peers["ris"].host == "h"
    assert loaded.config.peers["main-pacs"].port == 4242
    assert set(loaded.config.peers) == {"main-pacs", "ups", "ris"}


def test_a_file_written_on_windows_is_read_alike(file: Path) -> None:
    file.write_bytes("\ufeff[receive]\r\nport = 1\r\n".encode())
    loaded = load(file, environ={})
    assert (loaded.config.receive.port, loaded.origin["receive.port"].line) == (1, 2)


def test_relative_paths_belong_to_the_file_or_to_the_working_directory(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    loaded = _load(
        file, "[node]\ndata_dir = 'data'\nkeys_dir = 'x'\n", {"EDGE_NODE_NODE__KEYS_DIR": "keys"}, {"node.name": "n"}
    )
    assert loaded.config.node.data_dir == tmp_path / "data"
    assert loaded.config.node.keys_dir == elsewhere / "keys"


# -- what is wrong, and where -------------------------------------------------------------------------------------


def test_every_problem_is_told_at_once_in_reading_order(file: Path) -> None:
    text = """\
port = 5
[recieve]
port = 1
[receive]
prot = 1
port = "11112"
calling_ae_titles = [
  "OK",
  "much too long for an AE title",
  5,
]
allowed_addresses = ["10.0.0.0/8", "ward"]
require_called_ae_title = 1
[node]
ae_title = "X"
log_level = "warn"
data_dir = ""
[settle]
quiet_by_modality = { CT = 10, MR = "x", US = -1 }
[worklist]
mode = "live"
[peers.pacs]
ae_title = "PACS"
host = "h"
"""
    environ = {"EDGE_NODE_STORAGE__RESERVE_MB": "abc", "EDGE_NODE_RECEIVE_PORT": "1", "EDGE_NODE_FOO__X": "1"}
    assert _problems(file, text, environ, {"receive.max_associations": "0", "consent.source": "csv"}) == [
        "1: port: stands outside of any section; did you mean [receive] port?",
        "2: [recieve]: there is no such section; did you mean [receive]?",
        "5: [receive] prot: there is no such option; did you mean port?",
        '6: [receive] port: must be a whole number, at least 0 and at most 65535; not "11112"',
        "9: [receive] calling_ae_titles: element 2: an AE title has 1 to 16 printable ASCII characters without"
        " backslash (PS3.5 6.2)",
        "10: [receive] calling_ae_titles: element 3: must be text; not 5",
        "12: [receive] allowed_addresses: 'ward' does not appear to be an IPv4 or IPv6 network",
        "13: [receive] require_called_ae_title: must be true or false; not 1",
        "15: [node] ae_title: there is no such option; did you mean [receive] ae_title?",
        '16: [node] log_level: must be one of debug, info, warning, error; not "warn"; did you mean warning?',
        "17: [node] data_dir: must not be empty",
        '19: [settle] quiet_by_modality.MR: must be a number; not "x"',
        "19: [settle] quiet_by_modality.US: must be more than 0 and less than hard_cap_s",
        "22: [peers.pacs] port: is missing",
        "EDGE_NODE_FOO__X: [foo]: there is no such section",
        "EDGE_NODE_RECEIVE_PORT: has no effect; did you mean EDGE_NODE_RECEIVE__PORT?",
        'EDGE_NODE_STORAGE__RESERVE_MB: [storage] reserve_mb: must be a whole number, at least 16; not "abc"',
        "--set consent.source: [consent] csv_file: is needed when source is csv",
        "--set receive.max_associations: [receive] max_associations: must be a whole number, at least 1; not 0",
    ]


@pytest.mark.parametrize(
    ("text", "line"), [("[receive]\nport = \n", 2), ("a = 1\na = 2\n", 2), ("[x]\ny = '''\n", 3), ("[receive\n", 1)]
)
def test_a_syntax_error_names_its_line(file: Path, text: str, line: int) -> None:
    (problem,) = _problems(file, text)
    assert problem.startswith(f"{line}: not valid TOML: ")


def test_bytes_that_are_no_text_name_their_line(file: Path) -> None:
    file.write_bytes(b"[node]\nname = '\xff'\n")
    with pytest.raises(ConfigInvalid) as caught:
        load(file, environ={})
    assert caught.value.problems == (f"{file}:2: not UTF-8 text",)


def test_a_file_that_was_asked_for_must_be_there(file: Path, tmp_path: Path) -> None:
    for path, reason in ((file, "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigInvalid) as caught:
            load(path, environ={})
        assert caught.value.problems == (f"{path}: cannot be read: {reason}",)
    with pytest.raises(Stop):
        load(environ={"EDGE_NODE_CONFIG": str(file)})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("receive = 5\n", "1: [receive]: must be a table"),
        ("peers = 5\n", "1: [peers]: must be a table"),
        ("[peers]\npacs = 5\n", "2: [peers.pacs]: must be a table"),
        ("[node]\nname = 2024-01-01\n[receive]\nport = true\n", "4: [receive] port: must be a whole number"),
        ("[receive]\nport = 1.5\n", "2: [receive] port: must be a whole number"),
        ("[settle]\nquiet_s = nan\n", "2: [settle] quiet_s: must be a number"),
        ("[settle]\nquiet_by_modality = 5\n", "2: [settle] quiet_by_modality: must be a table of numbers; not 5"),
        ("[deid]\nrecipe = 5\n", "2: [deid] recipe: must be a path; not 5"),
        ("[receive]\nPort = 1\n", "2: [receive] Port: there is no such option; did you mean port?"),
        ("[receive]\nqqq = 1\n", "2: [receive] qqq: there is no such option"),
        ("[[receive]]\nport = 1\n", "1: [receive]: must be a table"),
        ("[peers.x]\nae_title = 'A'\nhost = 'h'\nport = 1\nprot = 2\n", "5: [peers.x] prot: there is no such option"),
        ("[receive]\nae_title = 'a\\b'\n", "2: [receive] ae_title: an AE title has"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_in_plain_words(file: Path, text: str, problem: str) -> None:
    assert _problems(file, text)[-1].startswith(problem)


def test_a_variable_that_does_not_fit_the_file_does_not_hide_the_file_s_problem(file: Path) -> None:
    assert _problems(file, "receive = 5\n", {"EDGE_NODE_RECEIVE__PORT": "1"}) == ["1: [receive]: must be a table"]


def test_variables_of_others_are_left_alone() -> None:
    environ = {"EDGE_NODE_ROLE": "x", "EDGE_NODE_STATUS_SOMETHING": "x", "OTHER__THING": "x"}
    assert load(environ=environ).config == load(environ={}).config


# -- between options, and between options and the disk ------------------------------------------------------------


def test_shadow_mode_needs_no_peer(file: Path) -> None:
    assert _load(file, "[worklist]\nmode = 'shadow'\n").config.peers == {}


def test_a_mode_that_writes_needs_its_peers(file: Path) -> None:
    assert _problems(file, "[worklist]\nmode = 'live'\n") == [
        "2: [worklist] pacs: there is no [peers.pacs], mode live needs it (peers: none)",
        "2: [worklist] ups: there is no [peers.ups], mode live needs it (peers: none)",
    ]
    assert _problems(file, f"[worklist]\nmode = 'information'\npacs = 'main'\n{PEERS}") == [
        "3: [worklist] pacs: there is no [peers.main], mode information needs it (peers: pacs, ups)"
    ]
    assert _load(file, f"[worklist]\nmode = 'live'\n{PEERS}").config.worklist.mode == "live"


def test_a_writer_needs_its_own_destination_and_no_other(file: Path) -> None:
    text = "[worklist]\nmode = 'live'\nwriters = ['hl7']\n"
    assert _problems(file, text) == ["3: [hl7] host: is needed when worklist.writers names hl7"]
    assert _load(file, text + "[hl7]\nhost = 'ris'\n").config.peers == {}
    assert _problems(file, text + "[hl7]\nhost = 'ris'\nca_file = 'ca.pem'\n") == [
        "6: [hl7] ca_file: has no effect without tls = true"
    ]


@pytest.mark.parametrize("name", ["fhir", "ups_rs"])
def test_a_web_writer_needs_an_address_that_keeps_patient_data_safe(file: Path, name: str) -> None:
    text = f"[worklist]\nmode = 'live'\nwriters = ['{name}']\n{PEERS}"
    (problem,) = _problems(file, text)
    assert problem.endswith(f"[{name}] url: is needed when worklist.writers names {name}")
    (problem,) = _problems(file, f"{text}[{name}]\nurl = 'http://ehr.example/x'\n")
    assert "unencrypted" in problem
    (problem,) = _problems(file, f"{text}[{name}]\nurl = 'https://ehr.example/x'\nuser = 'edge'\n")
    assert problem.endswith("user: needs password_file")


def test_an_identifier_system_is_a_uri(file: Path) -> None:
    (problem,) = _problems(file, "[fhir]\npatient_system = 'MRN'\n")
    assert problem.startswith("2: [fhir] patient_system: must be a URI")
    (problem,) = _problems(file, "[fhir]\npatient_systems = { WARD = 'urn:oid:1|2' }\n")
    assert "must be a URI" in problem
    good = "[fhir]\npatient_systems = { WARD = 'urn:oid:1.2', 'A B' = 'https://a.example/mrn' }\n"
    assert _load(file, good).config.fhir.patient_systems["A B"] == "https://a.example/mrn"


@pytest.mark.parametrize(
    "url",
    ["https://trainer.example/dicom-web/studies", "http://127.0.0.1:8042/x", "http://localhost/x", "http://[::1]:80/x"],
)
def test_an_encrypted_or_local_trainer_is_accepted(file: Path, url: str) -> None:
    assert _load(file, f"[forward]\nurl = '{url}'\n").config.forward.url == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://trainer.example/studies", "http:// would send studies unencrypted"),
        ("http://127.0.0.1.example/studies", "http:// would send studies unencrypted"),
        ("http://10.0.0.1/studies", "http:// would send studies unencrypted"),
        ("ftp://trainer.example/studies", "must be an address that begins with https://"),
        ("trainer.example/studies", "must be an address that begins with https://"),
        ("https:///studies", "must be an address that begins with https://"),
        ("https://bob:hunter2@trainer.example/studies", "must not carry a user or password"),
        ("https://trainer.example:port/studies", "is not a valid address"),
        ("https://trainer.example/studies?token=hunter2", "must not carry a query"),
    ],
)
def test_a_trainer_address_that_cannot_be_trusted_is_refused_and_not_repeated(
    file: Path, url: str, problem: str
) -> None:
    (told,) = _problems(file, f"[forward]\nurl = '{url}'\n")
    assert told.startswith(f"2: [forward] url: {problem}")
    assert "hunter2" not in told


def test_a_password_in_the_file_is_refused_and_not_repeated(file: Path) -> None:
    problems = _problems(file, "[forward]\npassword = 'hunter2'\nin_flight = 'hunter2'\n")
    assert problems[0] == "2: [forward] password: there is no such option; did you mean password_file?"
    assert "hunter2" not in "\n".join(problems)


def test_login_options_belong_together(file: Path, tmp_path: Path) -> None:
    for name in ("password", "token", "cert", "key"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o400)
    told = {
        "user = 'u'": "[forward] user: needs password_file",
        "password_file = 'password'": "[forward] password_file: needs user",
        "client_cert = 'cert'": "[forward] client_cert: needs client_key",
        "client_key = 'key'": "[forward] client_key: needs client_cert",
    }
    for text, problem in told.items():
        assert _problems(file, f"[forward]\n{text}\n") == [f"2: {problem}"]
    both = "user = 'u'\npassword_file = 'password'\ntoken_file = 'token'\n"
    assert _problems(file, f"[forward]\n{both}") == [
        "4: [forward] token_file: cannot be used together with user; choose one"
    ]
    assert _load(file, "[forward]\nclient_cert = 'cert'\nclient_key = 'key'\ntoken_file = 'token'\n")


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_a_private_password_file_is_accepted(file: Path, tmp_path: Path, mode: int) -> None:
    (tmp_path / "password").write_text("x")
    (tmp_path / "password").chmod(mode)
    loaded = _load(file, "[forward]\nuser = 'u'\npassword_file = 'password'\n")
    assert loaded.config.forward.password_file == tmp_path / "password"


@pytest.mark.parametrize("key", ["password_file", "token_file", "client_key"])
def test_a_secret_that_others_may_read_is_refused(file: Path, tmp_path: Path, key: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o640)
    problems = _problems(file, f"[forward]\n{key} = 'secret'\n")
    assert f"2: [forward] {key}: {secret}: other users may read this secret; chmod 0400 {secret}" in problems


def test_files_that_are_not_there_are_told_with_their_full_path(file: Path, tmp_path: Path) -> None:
    text = "[deid]\nrecipe = 'a.deid'\n[triage]\nmodels_dir = 'models'\n[consent]\nsource = 'csv'\ncsv_file = 'c.csv'\n"
    text += "[forward]\nca_file = 'ca.pem'\n"
    assert _problems(file, text) == [
        f"2: [deid] recipe: {tmp_path}/a.deid: no such file",
        f"4: [triage] models_dir: {tmp_path}/models: no such folder",
        f"7: [consent] csv_file: {tmp_path}/c.csv: no such file",
        f"9: [forward] ca_file: {tmp_path}/ca.pem: no such file",
    ]


def test_quiet_time_is_shorter_than_the_hard_cap(file: Path) -> None:
    assert _problems(file, "[settle]\nhard_cap_s = 4\nquiet_by_modality = {}\n") == [
        "2: [settle] quiet_s: must be less than hard_cap_s"
    ]


def test_the_error_survives_the_way_between_processes(file: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        _load(file, "[node]\nnmae = 'x'\n")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.problems, again.exit_code, again.message) == (caught.value.problems, 78, caught.value.message)

"""The node's store as one role may open it: ledger, keys of the role, sealed spool, vault."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge_node.config.key_files import KeyGuard
from edge_node.config.schema import SHIPPED_RECIPES, Config
from edge_node.config.secrets import MemoryVault, RoleKeys
from edge_node.domain.errors import Stop
from edge_node.domain.study import Role
from edge_node.store.database import Database
from edge_node.store.escrow import Escrow
from edge_node.store.keyring import Keyring
from edge_node.store.seal import public_key
from edge_node.store.spool import SpoolReader, SpoolWriter
from edge_node.store.studies import CleanObjects, Vault
from edge_node.store.tasks import Tasks

LEDGER = "ledger.sqlite3"
SPOOL = "spool"


def ledger_path(config: Config) -> Path:
    """The SQLite file below `node.data_dir`."""
    return config.node.data_dir / LEDGER


def spool_path(config: Config) -> Path:
    """The folder of sealed segments below `node.data_dir`."""
    return config.node.data_dir / SPOOL


def shipped(*parts: str) -> Path:
    """A file that ships with the node (recipes, models): inside the wheel, or `configs/` of a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package.joinpath("_configs", *parts)
    return inside if inside.exists() else package.parent.joinpath("configs", *parts)


def recipe_path(config: Config) -> Path:
    """The site's recipe, or the shipped basic one."""
    return recipe_file(config.deid.recipe or Path("basic"))


def recipe_file(named: Path) -> Path:
    """The file of a recipe that the configuration names: its path, or the name of a shipped one."""
    return shipped("recipes", f"{named}.deid") if str(named) in SHIPPED_RECIPES else named


def models_path(config: Config) -> Path:
    """The site's model packages, or the shipped ones."""
    return config.triage.models_dir or shipped("models")


@dataclass(frozen=True, slots=True)
class Node:
    """Everything a role needs to work; only the dicom role's `keys` open the vault and the quarantine."""

    config: Config
    role: Role
    actor: str
    keys: RoleKeys = field(repr=False)
    database: Database
    keyring: Keyring
    clean: CleanObjects
    vault: Vault
    tasks: Tasks

    def spool_writer(self) -> SpoolWriter:
        """A writer of new segments, for one process."""
        storage = self.config.storage
        return SpoolWriter(
            spool_path(self.config),
            segment_bytes=storage.segment_mb << 20,
            large_bytes=storage.large_object_mb << 20,
        )


def open_node(config: Config, role: Role, vault: MemoryVault | None = None) -> Node:
    """Open the store with the keys of `role`. Raises Stop when keys or ledger are missing or unusable.

    As long as anything of the node is in use, no key can be exchanged. `vault` is the vault key of a site that keeps it
    in memory only; who has not been given it opens everything but identity.
    """
    guard = KeyGuard(config)
    keys = RoleKeys(role, config, vault=vault)
    database = Database(ledger_path(config))
    database.migrate()
    keyring = Keyring(
        database,
        {name: keys.key(name) for name in keys.names},
        old_keys=keys.old_keys,
        guard=guard,
        life=vault.life if vault else "",
    )
    spool = SpoolReader(spool_path(config))
    actor = f"{config.node.name}/{role}"
    return Node(
        config,
        role,
        actor,
        keys,
        database,
        keyring,
        CleanObjects(database, keyring, spool),
        Vault(database, keyring),
        Tasks(database, actor),
    )


def existing_ledger(config: Config) -> Database:
    """The node's ledger, up to date, to write in. Raises Stop("ledger.missing") instead of making an empty one."""
    Database(ledger_path(config), read_only=True).close()
    database = Database(ledger_path(config))
    database.migrate()
    return database


def escrow_of(config: Config) -> Escrow | None:
    """The writer of escrow records, None where there is none. Raises Stop("escrow.no-public-key")."""
    path = config.deid.escrow
    if path is None:
        return None
    try:
        return Escrow(public_key(path.read_bytes()))
    except OSError as error:
        raise Stop(
            "escrow.no-public-key",
            f"[deid] escrow: {path} cannot be read: {error.strerror}",
            hint="`edge-node key escrow DIR` makes one; the node gets the public key only",
        ) from None

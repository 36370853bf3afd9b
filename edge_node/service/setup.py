"""First steps of a node: folders, keys, ledger."""

from __future__ import annotations

from edge_node import __version__
from edge_node.config.schema import Config
from edge_node.config.secrets import create_keys, kept_keys, keys_dir
from edge_node.domain.errors import Stop
from edge_node.service.node import ledger_path, spool_path
from edge_node.store import audit
from edge_node.store.database import Database


def initialise(config: Config) -> dict[str, str]:
    """Make data folder, spool, keys and ledger where they are missing; returns what was done, for people.

    Raises Stop("init.unwritable") when the data folder cannot be made.
    """
    try:
        config.node.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        spool_path(config).mkdir(mode=0o750, exist_ok=True)
    except OSError as error:
        raise Stop(
            "init.unwritable",
            f"[node] data_dir: {config.node.data_dir} cannot be made: {error.strerror}",
            hint="run as the node's user, or set node.data_dir",
            exit_code=77,
        ) from None
    made = create_keys(keys_dir(config), kept_keys(config))
    fresh = not ledger_path(config).exists()
    database = Database(ledger_path(config))
    version = database.migrate()
    if fresh or made:
        with database.write() as connection:
            audit.append(
                connection,
                f"{config.node.name}/init",
                "node.initialised",
                detail={"version": __version__, "keys": sorted(made), "schema": version},
            )
    database.close()
    return {
        "data folder": str(config.node.data_dir),
        "keys": f"made {', '.join(made)}" if made else "already there",
        "ledger": f"schema {version}, {'new' if fresh else 'already there'}",
    }

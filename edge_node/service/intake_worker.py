"""What a de-identifying worker process is: the whole way of an instance from its memory to the ledger.

Everything is imported at the top: workers are forked from a process that has loaded this module (`beginning`).
"""

from __future__ import annotations

from edge_node.config.schema import Config
from edge_node.config.secrets import MemoryVault
from edge_node.deid import instance_key_of, peek_study_key
from edge_node.domain.study import Role
from edge_node.receive.intake import Intake
from edge_node.receive.workers import AcceptAll
from edge_node.service import logs
from edge_node.service.announcing import Announcing, accepting_both
from edge_node.service.node import escrow_of, open_node
from edge_node.service.process import harden, keep_memory
from edge_node.service.recipes import build
from edge_node.service.site_keys import SiteKey, continuing
from edge_node.store.intake import IntakeStore
from edge_node.store.renewal import Renewal


def make_intake(config: Config, vault: MemoryVault | None = None) -> AcceptAll:
    """Build the accepting function of one de-identifying worker process."""
    harden()
    keep_memory()
    logs.configure(config.node.log_format, config.node.log_level, role="dicom", node=config.node.name)
    node = open_node(config, Role.DICOM, vault)
    site_key, before = node.keys.key("pseudonym"), node.keys.old("pseudonym")

    def with_key(key: bytes) -> SiteKey:
        return SiteKey(
            build(config, key).deidentify,
            lambda instance: peek_study_key(instance, key),
            lambda instance: instance_key_of(key, instance.sop_instance),
        )

    store = IntakeStore(
        node.database,
        node.keyring,
        node.spool_writer(),
        actor=node.actor,
        quarantine_s=config.deid.quarantine_days * 86400.0,
        envelope_s=config.retention.envelope_hours * 3600.0,
        escrow=escrow_of(config),
        renewal=Renewal(node.database, node.keyring) if vault else None,
    )
    key = continuing(with_key(site_key), with_key(before) if before else None, store.has_study)
    intake = Intake(store, key.deidentify, key.peek_study, digest_key=site_key, name_instance=key.name_instance)
    signals = Announcing(node.database, [one for one in (site_key, before) if one], node.actor)
    return accepting_both(intake.accept_all, signals)

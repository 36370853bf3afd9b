"""What is kept: the ledger, the sealed spool, the identity vault, the quarantine and the audit chain."""

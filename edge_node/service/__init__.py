"""What systemd runs: the roles, their schedule, supervision, logs, metrics, status page and doctor."""

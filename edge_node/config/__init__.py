"""Configuration: every option once (`schema`), file < environment < flag (`load`), keys and passwords (`secrets`)."""

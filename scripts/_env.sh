# Shared by the scripts beside it: `ROOT`, `PYTHON` and `prepare_env`, which makes the Python environment in .venv.
# Needs Python 3.11 or newer with its venv module; uv is used if there is one, else put into .venv.
# shellcheck shell=bash

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
PYTHON="$ROOT/.venv/bin/python"

# prepare_env: nothing to do, nothing to say, when .venv fits uv.lock. UV_NO_SYNC=1 takes .venv as it is.
prepare_env() {
    local stamp="$ROOT/.venv/.made-from" wanted
    wanted=$(cat -- "$ROOT/uv.lock" "$ROOT/pyproject.toml" | sha256sum | cut -d' ' -f1)
    [[ -x $PYTHON && ${UV_NO_SYNC:-} == 1 ]] && return 0
    [[ -x $PYTHON && -f $stamp && $(<"$stamp") == "$wanted" ]] && return 0
    (
        flock 9 # two scripts started together make it once
        [[ -x $PYTHON && -f $stamp && $(<"$stamp") == "$wanted" ]] && exit 0
        echo "Preparing the Python environment in .venv (once; it may take minutes) …" >&2
        log=$(mktemp)
        trap 'rm -f -- "$log"' EXIT
        if ! _make_env >"$log" 2>&1; then
            cat -- "$log" >&2
            echo "The Python environment could not be made; the reason stands above." >&2
            exit 69
        fi
        printf '%s\n' "$wanted" >"$stamp"
    ) 9<"$ROOT/uv.lock"
}

_make_env() {
    local uv system=/etc/ssl/certs/ca-certificates.crt
    # uv brings its own list of authorities; a hospital's proxy is often signed by one that only the system knows
    [[ -f $system ]] && export SSL_CERT_FILE=${SSL_CERT_FILE:-$system}
    if uv --version >/dev/null 2>&1; then
        uv=uv
    else
        [[ -x $PYTHON ]] || "$(_find_python)" -m venv "$ROOT/.venv" || {
            echo "python3 has no venv module: apt-get install python3-venv"
            return 1
        }
        uv="$ROOT/.venv/bin/uv"
        [[ -x $uv ]] || "$PYTHON" -m pip install --quiet --disable-pip-version-check "uv>=0.8" || return
    fi
    # --inexact: what a developer added (the cuda extra, the train group) stays
    (cd -- "$ROOT" && unset VIRTUAL_ENV && UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300} "$uv" sync --locked --inexact --quiet)
}

_find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv" >&2
    echo false
}

#!/usr/bin/env bash
# All tests; up to three that fail are run once more by themselves. One that passes then is unsteady: it is named, and it is a fault to mend,
# but a browser that was kept waiting by a busy machine does not hide what the other tests say. STRICT=1 leaves the second chance out.
set -uo pipefail
cd "$(dirname "$0")/.."
pytest=(.venv/bin/python -m pytest)
failed=.pytest_cache/v/cache/lastfailed
case " $* " in *" --lf "* | *" --last-failed "* | *" --ff "* | *" --failed-first "*) exec "${pytest[@]}" "$@" ;; esac # who asks for what failed before gets it
rm -f "$failed"
"${pytest[@]}" "$@"
code=$?
[ "$code" -eq 1 ] && [ -z "${STRICT:-}" ] && [ -s "$failed" ] || exit "$code"
mapfile -t names < <(.venv/bin/python -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$failed")
[ "${#names[@]}" -le 3 ] || exit "$code"
printf '\nOnce more, by themselves:\n'
printf '  %s\n' "${names[@]}"
"${pytest[@]}" -p no:randomly "${names[@]}" || exit "$code"
printf '\nUNSTEADY (failed among the others, passed alone): please open an issue.\n'
printf '  %s\n' "${names[@]}"

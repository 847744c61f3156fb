# ---- The API key. It waits in a file that this user alone can read, is taken away when the job starts
# and reaches the engine by its environment, or by a configuration file in a private folder on this
# node, in memory where there is some. No process has it among its arguments.
isthmus_api_key=""
isthmus_private=""
isthmus_redactor=""

# Waits for a file with a secret, for a network file system may show a new one a minute late. Only a
# plain file that its owner alone can read is one.
await_secret() {
  local isthmus_tries
  for ((isthmus_tries = 0; isthmus_tries < 90; isthmus_tries++)); do
    [ -e "$1" ] || [ -L "$1" ] && break
    sleep 1
  done
  [ -e "$1" ] || [ -L "$1" ] || fail 78 "there is no $2 at $1"
  [ -f "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ "$(stat -c %a -- "$1")" = 600 ] ||
    fail 78 "$1 is not a file that only its owner can read"
}

take_key() {
  [ -n "$isthmus_shared_key" ] || return
  await_secret "$isthmus_shared_key" "API key"
  IFS= read -r isthmus_api_key <"$isthmus_shared_key" || [ -n "$isthmus_api_key" ] ||
    fail 78 "the API key is empty"
  rm -f -- "$isthmus_shared_key"
  trap forget_key EXIT
}

# Makes the private folder: the configuration file of an engine that takes its key by one, and a pipe
# that blots the key out of what the engine writes into its log.
hand_over_key() {
  local isthmus_root
  [ -n "$isthmus_api_key" ] && [ -z "$isthmus_key_variable" ] || return 0
  [ -z "$isthmus_private" ] || rm -rf -- "$isthmus_private"
  for isthmus_root in /dev/shm "${TMPDIR:-/tmp}"; do
    isthmus_private=$(mktemp -d -- "$isthmus_root/isthmus-$isthmus_job_id.XXXXXX" 2>/dev/null) && break
  done
  [ -n "$isthmus_private" ] || fail 78 "no private folder on this node for the API key"
  isthmus_key_file="$isthmus_private/engine.yaml"
  printf 'api-key: "%s"\n' "$isthmus_api_key" >"$isthmus_key_file"
  printf 's,%s,********,g\n' "$isthmus_api_key" >"$isthmus_private/blot.sed"
  mkfifo -- "$isthmus_private/output" || fail 78 "cannot make a pipe in $isthmus_private"
  # It ends with the engine, not by the signals of the job's end.
  (trap '' TERM USR1; exec sed -u -f "$isthmus_private/blot.sed" <"$isthmus_private/output") &
  isthmus_redactor=$!
}

# shellcheck disable=SC2317,SC2329
forget_key() {
  local isthmus_tries
  for ((isthmus_tries = 0; isthmus_tries < 20; isthmus_tries++)); do
    [ -n "$isthmus_redactor" ] && kill -0 "$isthmus_redactor" 2>/dev/null || break
    sleep 0.1
  done
  [ -z "$isthmus_private" ] || rm -rf -- "$isthmus_private"
  # A copy that came while the job was starting.
  rm -f -- "$isthmus_shared_key"
}

#!/bin/bash
# The batch script of one Isthmus worker: one engine on one node.
# It claims its attempt, finds a free port, publishes it in the job's comment, runs the engine in
# the background and passes TERM to the engine's main process alone, also by its own timer before
# the job's granted end. Exit codes of its own: 74 the work directory cannot be written, 75 the
# attempt was claimed by another start, 78 a module, a free port or the API key is missing.
set -u
umask 077
export SLURM_EXPORT_ENV=ALL

# @CONSTANTS@
engine_port=""
key_file=""
engine_command=()
job_id=${SLURM_JOB_ID:?"this script runs under SLURM only"}
start="$job_id.${SLURM_RESTART_COUNT:-0}"
claim="$work_directory/$job_name.claim"
run_directory="$work_directory/$job_name/$start"

say() { printf '%(%FT%T%z)T isthmus: %s\n' -1 "$*"; }
fail() { local code=$1; shift; say "$*"; exit "$code"; }

# ---- The start gate: the first act, one atomic step. A duplicate submission, a requeue or a second
# start under the same id ends here, before a model is loaded. The claim names this very process:
# after a controller crash the same id can start twice with the same restart count.
pass_gate() {
  local me
  me="$start.${SLURMD_NODENAME:-node}.$$.$(date +%s%N)"
  mkdir -p -- "$work_directory" 2>/dev/null
  ln -sT -- "$me" "$claim" 2>/dev/null && return
  # A network file system may repeat a request whose answer was lost: then the claim is ours.
  [ "$(readlink -- "$claim")" = "$me" ] && return
  [ ! -L "$claim" ] || fail 75 "this attempt was claimed by $(readlink -- "$claim"): nothing to do"
  fail 74 "cannot write $claim"
}

# ---- The site's modules and set-up. They are the administrator's: an error in the set-up text is
# reported, and the engine is tried all the same.
set_up() {
  local file name
  set +u
  if [ ${#modules[@]} -gt 0 ] && ! type module >/dev/null 2>&1; then
    for file in /etc/profile.d/*mod*.sh; do
      # shellcheck disable=SC1090
      [ ! -r "$file" ] || . "$file"
    done
  fi
  for name in "${modules[@]}"; do
    module load "$name" || fail 78 "the environment module $name cannot be loaded"
  done
  eval "$setup" || say "the site's set-up ended with $?"
  set -u +e
}

# ---- The port. Jobs of one user on one node hold a lock on theirs, because an engine opens its port
# only after minutes of loading; the first guess depends on the job id.
listening() {
  local hex
  printf -v hex ':%04X' "$1"
  grep -qsE "^ *[0-9]+: [0-9A-F]+$hex [0-9A-F:]+ 0A " /proc/net/tcp /proc/net/tcp6
}

lock_port() {
  local folder="/tmp/isthmus-ports-$UID"
  mkdir -m 700 -- "$folder" 2>/dev/null
  if [ -d "$folder" ] && [ -O "$folder" ] && [ ! -L "$folder" ] && [ ! -L "$folder/$1" ]; then
    { exec {port_lock}>"$folder/$1"; } 2>/dev/null || exec {port_lock}>/dev/null
  else
    exec {port_lock}>/dev/null
  fi
  [ -f "/dev/fd/$port_lock" ] || return 0 # no lock to be had: the job id alone must do
  flock -n "$port_lock" 2>/dev/null || [ $? -eq 127 ] || { exec {port_lock}>&-; return 1; }
}

find_port() {
  local size=$((port_to - port_from + 1)) i
  for ((i = 0; i < size; i++)); do
    engine_port=$((port_from + (job_id * 37 + i) % size))
    if ! listening "$engine_port" && lock_port "$engine_port"; then return; fi
  done
  fail 78 "all ports from $port_from to $port_to are taken on this node"
}

# ---- The API key. It waits in a file that this user alone can read, is taken away when the job starts
# and reaches the engine by its environment, or by a configuration file in a private folder on this
# node, in memory where there is some. No process has it among its arguments.
api_key=""
private=""
redactor=""

take_key() {
  local tries
  [ -n "$shared_key" ] || return
  # A network file system may show a new file a minute late.
  for ((tries = 0; tries < 90; tries++)); do
    [ -f "$shared_key" ] && break
    sleep 1
  done
  [ -f "$shared_key" ] || fail 78 "there is no API key at $shared_key"
  [ -O "$shared_key" ] && [ ! -L "$shared_key" ] && [ "$(stat -c %a -- "$shared_key")" = 600 ] ||
    fail 78 "$shared_key is not a file that only its owner can read"
  IFS= read -r api_key <"$shared_key" || [ -n "$api_key" ] || fail 78 "the API key is empty"
  rm -f -- "$shared_key"
  trap forget_key EXIT
}

# Makes the private folder: the configuration file of an engine that takes its key by one, and a pipe
# that blots the key out of what the engine writes into its log.
hand_over_key() {
  local root
  [ -n "$api_key" ] && [ -z "$key_variable" ] || return 0
  [ -z "$private" ] || rm -rf -- "$private"
  for root in /dev/shm "${TMPDIR:-/tmp}"; do
    private=$(mktemp -d -- "$root/isthmus-$job_id.XXXXXX" 2>/dev/null) && break
  done
  [ -n "$private" ] || fail 78 "no private folder on this node for the API key"
  key_file="$private/engine.yaml"
  printf 'api-key: "%s"\n' "$api_key" >"$key_file"
  printf 's,%s,********,g\n' "$api_key" >"$private/blot.sed"
  mkfifo -- "$private/output" || fail 78 "cannot make a pipe in $private"
  # It ends with the engine, not by the signals of the job's end.
  (trap '' TERM USR1; exec sed -u -f "$private/blot.sed" <"$private/output") &
  redactor=$!
}

# Once the engine listens it has read everything. That takes minutes, so it is looked for ever less
# often: a node may have many jobs.
remove_key_file() {
  local delay=1
  until listening "$1"; do
    pause "$delay"
    delay=$((delay < 10 ? delay * 2 : 15))
  done
  rm -rf -- "$private"
}

# shellcheck disable=SC2317,SC2329
forget_key() {
  local tries
  for ((tries = 0; tries < 20; tries++)); do
    [ -n "$redactor" ] && kill -0 "$redactor" 2>/dev/null || break
    sleep 0.1
  done
  [ -z "$private" ] || rm -rf -- "$private"
  # A copy that came while the job was starting.
  rm -f -- "$shared_key"
}

# ---- What runs beside the engine: each in the background, none may fail the job.
pause() {
  sleep "$1" &
  local sleeper=$!
  # shellcheck disable=SC2064
  trap "kill $sleeper 2>/dev/null; exit" TERM
  wait "$sleeper"
}

publish() {
  local delay=1
  until timeout -k 5 30 scontrol update "JobId=$job_id" "Comment=$comment:port=$1" >/dev/null 2>&1
  do
    pause "$delay"
    delay=$((delay < 30 ? delay * 2 : 60))
  done
}

granted_end() {
  local end
  end=$(SLURM_TIME_FORMAT=%s timeout -k 5 30 squeue -h -j "$job_id" -o %e 2>/dev/null) || return 1
  [ -n "$end" ] || return 1
  case $end in *[!0-9]*) echo none ;; *) echo "$end" ;; esac
}

# Ends the engine in time when the operator does not. The end is read again when the time has come:
# an administrator may have moved it. (If it was moved closer, SLURM's USR1 comes in time.) Of a
# short job the lead is at most half of what it was granted.
watch_end() {
  local end now lead=""
  while :; do
    until end=$(granted_end); do pause 60; done
    [ "$end" != none ] || return
    printf -v now '%(%s)T' -1
    if [ -z "$lead" ]; then
      lead=$(((end - now) / 2))
      [ "$lead" -lt "$term_lead" ] || lead=$term_lead
    fi
    [ $((end - lead)) -gt "$now" ] || break
    pause $((end - lead - now))
  done
  say "the job ends in $((end - now)) s"
  kill -TERM "$$"
}

# ---- The call to a bastion, where the site lets nobody in: ssh listens there for the engine. Its key
# waits in a file that this user alone can read, and is taken to this node, in memory where it can be.
tunnel_folder=""

take_tunnel_key() {
  local tries root
  [ -n "$bastion_host" ] || return 0
  # A network file system may show a new file a minute late.
  for ((tries = 0; tries < 90; tries++)); do
    [ -f "$shared_tunnel_key" ] && break
    sleep 1
  done
  [ -O "$shared_tunnel_key" ] && [ "$(stat -c %a -- "$shared_tunnel_key")" = 600 ] ||
    fail 78 "$shared_tunnel_key is not a file that only its owner can read"
  for root in /dev/shm "${TMPDIR:-/tmp}"; do
    tunnel_folder=$(mktemp -d -- "$root/isthmus-tunnel-$job_id.XXXXXX" 2>/dev/null) && break
  done
  cp -- "$shared_tunnel_key" "$tunnel_folder/key" || fail 78 "no private folder on this node"
  printf '%s\n' "$bastion_known" >"$tunnel_folder/known_hosts"
  rm -f -- "$shared_tunnel_key"
}

forget_tunnel_key() { [ -z "$tunnel_folder" ] || rm -rf -- "$tunnel_folder"; }

# For as long as the engine runs: the first call after a loss is immediate, those after one that
# failed are ever further apart.
call_bastion() {
  local delay=0 began now child
  while :; do
    printf -v began '%(%s)T' -1
    ssh -F none -N -T -i "$tunnel_folder/key" -o BatchMode=yes -o IdentitiesOnly=yes \
      -o ExitOnForwardFailure=yes -o ConnectTimeout=10 -o LogLevel=ERROR \
      -o ServerAliveInterval=5 -o ServerAliveCountMax=3 -o StrictHostKeyChecking=yes \
      -o "UserKnownHostsFile=$tunnel_folder/known_hosts" -o GlobalKnownHostsFile=/dev/null \
      -R "$forward_port:127.0.0.1:$1" -p "$bastion_port" -l "$bastion_user" -- "$bastion_host" &
    child=$!
    # shellcheck disable=SC2064
    trap "kill $child 2>/dev/null; exit" TERM
    wait "$child"
    printf -v now '%(%s)T' -1
    if [ $((now - began)) -ge 30 ]; then delay=0; fi
    [ "$delay" -eq 0 ] || pause "$delay"
    delay=$((delay == 0 ? 1 : delay < 15 ? delay * 2 : 30))
  done
}

# ---- The engine. TERM and USR1 to this shell become TERM to the engine's main process: TERM to all
# processes of an engine crashes it instead of draining it. It leads a process group of its own: what
# its main process leaves behind when it ends (a vLLM that is killed leaves all its GPU processes)
# ends with it, and nothing else can be in that group.
engine=""
signalled=""
ending=""
helpers=()

# shellcheck disable=SC2317,SC2329
end_engine() {
  signalled=yes
  ending=yes
  [ -z "$engine" ] || kill -TERM "$engine" 2>/dev/null
}

stop_helpers() {
  [ ${#helpers[@]} -eq 0 ] || kill -TERM "${helpers[@]}" 2>/dev/null
  helpers=()
}

end_group() {
  local tries
  kill -0 -- "-$1" 2>/dev/null || return 0
  say "ending what the engine's main process has left running"
  kill -TERM -- "-$1" 2>/dev/null
  for ((tries = 0; tries < 50; tries++)); do
    sleep 0.1
    kill -0 -- "-$1" 2>/dev/null || return 0
  done
  kill -KILL -- "-$1" 2>/dev/null
}

run_engine() {
  local now group previous=""
  hand_over_key
  set_command
  [ -z "$private" ] || { remove_key_file "$engine_port" & helpers+=("$!"); }
  say "starting the engine on port $engine_port"
  # Job control is what makes a group. With it on, `wait` would come back for an engine that is only
  # suspended, and a command in the background would keep standard input.
  set -m
  (
    set +m
    exec {port_lock}>&-
    set_environment
    [ -z "$key_variable" ] || export "$key_variable=$api_key"
    [ -z "$private" ] || exec >"$private/output" 2>&1
    exec "${engine_command[@]}"
  ) </dev/null &
  engine=$!
  set +m
  group=$engine
  [ -z "$ending" ] || kill -TERM "$engine" 2>/dev/null
  while :; do
    signalled=""
    wait "$engine" # comes back early for a signal
    now=$?
    # 127: an earlier round had the engine's own code already.
    [ "$now" -eq 127 ] && [ -n "$previous" ] || code=$now
    [ -n "$signalled" ] || break
    previous=$now
  done
  engine=""
  say "the engine ended with $code"
  end_group "$group"
}

main() {
  local tries code=1
  pass_gate
  take_key
  take_tunnel_key
  set_up
  mkdir -p -- "$run_directory" || fail 74 "cannot make $run_directory"
  cd -- "$run_directory" || fail 74 "cannot use $run_directory"
  trap end_engine TERM USR1
  watch_end &
  local timer=$!
  for tries in 1 2 3; do
    find_port
    publish "$engine_port" &
    helpers=("$!")
    [ -z "$tunnel_folder" ] || { call_bastion "$engine_port" & helpers+=("$!"); }
    run_engine
    stop_helpers
    # Only if somebody else took the port meanwhile is another one worth a try.
    if [ -n "$ending" ] || [ "$code" -eq 0 ] || ! listening "$engine_port"; then break; fi
    say "port $engine_port was taken by another process: trying the next one ($tries)"
    exec {port_lock}>&-
  done
  kill -TERM "$timer" 2>/dev/null
  forget_tunnel_key
  # The codes of this script mean something else to the operator.
  case $code in 74 | 75 | 78) code=1 ;; esac
  exit "$code"
}

main

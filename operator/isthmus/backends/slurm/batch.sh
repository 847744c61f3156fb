#!/bin/bash
# The batch script of one Isthmus worker: one engine on one node.
# It claims its attempt, finds a free port, runs the engine in the background, publishes the port in
# the job's comment once the engine itself listens there, and passes TERM to the engine's main process
# alone, also by its own timer before the job's granted end. Exit codes of its own: 74 the work
# directory cannot be written, 75 the attempt was claimed by another start, 78 a module, a free port or
# the API key is missing.
#
# All its variables begin with isthmus_, also local ones: the site's set-up and modules and the engine's
# environment bring names of their own into this shell, and none of those begins so.
set -u
umask 077
export SLURM_EXPORT_ENV=ALL

# @CONSTANTS@
isthmus_engine_port=""
isthmus_key_file=""
isthmus_engine_command=()
isthmus_job_id=${SLURM_JOB_ID:?"this script runs under SLURM only"}
isthmus_start="$isthmus_job_id.${SLURM_RESTART_COUNT:-0}"
isthmus_claim="$isthmus_work_directory/$isthmus_job_name.claim"
isthmus_run_directory="$isthmus_work_directory/$isthmus_job_name/$isthmus_start"

say() { printf '%(%FT%T%z)T isthmus: %s\n' -1 "$*"; }
fail() {
  local isthmus_status=$1
  shift
  say "$*"
  exit "$isthmus_status"
}

# ---- The start gate: the first act, one atomic step. A duplicate submission, a requeue or a second
# start under the same id ends here, before a model is loaded. The claim names this very process:
# after a controller crash the same id can start twice with the same restart count.
pass_gate() {
  local isthmus_me
  isthmus_me="$isthmus_start.${SLURMD_NODENAME:-node}.$$.$(date +%s%N)"
  mkdir -p -- "$isthmus_work_directory" 2>/dev/null
  ln -sT -- "$isthmus_me" "$isthmus_claim" 2>/dev/null && return
  # A network file system may repeat a request whose answer was lost: then the claim is ours.
  [ "$(readlink -- "$isthmus_claim")" = "$isthmus_me" ] && return
  [ ! -L "$isthmus_claim" ] ||
    fail 75 "this attempt was claimed by $(readlink -- "$isthmus_claim"): nothing to do"
  fail 74 "cannot write $isthmus_claim"
}

# ---- The site's modules and set-up. They are the administrator's: an error in the set-up text is
# reported, and the engine is tried all the same.
set_up() {
  local isthmus_file isthmus_module
  set +u
  if [ ${#isthmus_modules[@]} -gt 0 ] && ! type module >/dev/null 2>&1; then
    for isthmus_file in /etc/profile.d/*mod*.sh; do
      # shellcheck disable=SC1090
      [ ! -r "$isthmus_file" ] || . "$isthmus_file"
    done
  fi
  for isthmus_module in "${isthmus_modules[@]}"; do
    module load "$isthmus_module" ||
      fail 78 "the environment module $isthmus_module cannot be loaded"
  done
  eval "$isthmus_setup" || say "the site's set-up ended with $?"
  set -u +e
}

# ---- The port. Jobs of one user on one node hold a lock on theirs, because an engine opens its port
# only after minutes of loading; the first guess depends on the job id.

# The lines of all sockets that listen at a port. Read once a second for minutes: one process.
sockets_at() {
  local isthmus_hex
  printf -v isthmus_hex ':%04X' "$1"
  grep -hsE "^ *[0-9]+: [0-9A-F]+$isthmus_hex [0-9A-F:]+ 0A " /proc/net/tcp /proc/net/tcp6
}

listening() { sockets_at "$1" >/dev/null; }

lock_port() {
  local isthmus_folder="/tmp/isthmus-ports-$UID"
  mkdir -m 700 -- "$isthmus_folder" 2>/dev/null
  if [ -d "$isthmus_folder" ] && [ -O "$isthmus_folder" ] && [ ! -L "$isthmus_folder" ] &&
    [ ! -L "$isthmus_folder/$1" ]; then
    { exec {isthmus_port_lock}>"$isthmus_folder/$1"; } 2>/dev/null ||
      exec {isthmus_port_lock}>/dev/null
  else
    exec {isthmus_port_lock}>/dev/null
  fi
  # Without a lock to be had the job id alone must do.
  [ -f "/dev/fd/$isthmus_port_lock" ] || return 0
  flock -n "$isthmus_port_lock" 2>/dev/null || [ $? -eq 127 ] ||
    { exec {isthmus_port_lock}>&-; return 1; }
}

find_port() {
  local isthmus_size=$((isthmus_port_to - isthmus_port_from + 1)) isthmus_i
  for ((isthmus_i = 0; isthmus_i < isthmus_size; isthmus_i++)); do
    isthmus_engine_port=$((isthmus_port_from + (isthmus_job_id * 37 + isthmus_i) % isthmus_size))
    if ! listening "$isthmus_engine_port" && lock_port "$isthmus_engine_port"; then return; fi
  done
  fail 78 "all ports from $isthmus_port_from to $isthmus_port_to are taken on this node"
}

# ---- Whose port it is. Somebody with a job on the same node may listen at a port that we chose before
# the engine does: what is sent there is his then. So the port is published when every socket that
# listens at it is the engine's own.

# Whether a process belongs to the engine that leads this process group: by group, by descent, or by
# the job's cgroup, for what has left both.
is_engines() {
  local isthmus_pid=$1 isthmus_text="" isthmus_fields
  { IFS= read -r -d '' isthmus_text <"/proc/$isthmus_pid/cgroup"; } 2>/dev/null
  [[ $isthmus_text != *"/job_$isthmus_job_id/"* ]] || return 0
  while [ "$isthmus_pid" -gt 1 ]; do
    [ "$isthmus_pid" -ne "$2" ] || return 0
    isthmus_text=""
    { IFS= read -r -d '' isthmus_text <"/proc/$isthmus_pid/stat"; } 2>/dev/null
    read -r -a isthmus_fields <<<"${isthmus_text##*) }" # state, parent, group
    [ ${#isthmus_fields[@]} -gt 2 ] || return 1
    [ "${isthmus_fields[2]}" -ne "$2" ] || return 0
    isthmus_pid=${isthmus_fields[1]}
  done
  return 1
}

# Who listens at a port, seen from the engine of a group: ours, nobody, other, hidden (a socket of this
# user, and no process that holds it can be seen) or unknown (the node shows no sockets).
listener() {
  local isthmus_line isthmus_fields isthmus_place isthmus_answer=nobody
  [ -r /proc/net/tcp ] || [ -r /proc/net/tcp6 ] || { echo unknown; return; }
  while read -r -a isthmus_fields; do
    [ "${isthmus_fields[7]}" = "$EUID" ] || { echo other; return; }
    isthmus_answer=hidden
    # Of other users find sees nothing, and of our own there are few.
    while read -r isthmus_place; do
      isthmus_place=${isthmus_place#/proc/}
      isthmus_answer=other
      is_engines "${isthmus_place%%/*}" "$2" && { isthmus_answer=ours; break; }
    done < <(find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\[${isthmus_fields[9]}\]" 2>/dev/null)
    [ "$isthmus_answer" = ours ] || break
  done < <(sockets_at "$1")
  echo "$isthmus_answer"
}

# Returns once the port may be published.
wait_for_listener() {
  local isthmus_who isthmus_told="" isthmus_hidden=0
  while :; do
    isthmus_who=$(listener "$1" "$2")
    case $isthmus_who in
      ours) return ;;
      unknown)
        say "this node does not show who listens at port $1: publishing it without a look"
        return
        ;;
      hidden)
        # Twice, because between the two looks at the node a socket may have gone.
        isthmus_hidden=$((isthmus_hidden + 1))
        if [ "$isthmus_hidden" -gt 1 ]; then
          say "what listens at port $1 is this user's, and cannot be seen further: publishing it"
          return
        fi
        ;;
      other)
        [ -n "$isthmus_told" ] ||
          say "port $1 is not published: another process than the engine listens there"
        isthmus_told=yes
        pause 4
        ;;
    esac
    pause 1
  done
}

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

# ---- What runs beside the engine: each in the background, none may fail the job.
pause() {
  sleep "$1" &
  local isthmus_sleeper=$!
  # shellcheck disable=SC2064
  trap "kill $isthmus_sleeper 2>/dev/null; exit" TERM
  wait "$isthmus_sleeper"
}

# Two ways, because some sites let nobody change a job's comment: the comment, which one question shows
# for all jobs, and a file in the run folder, which the operator reads where the comment says nothing.
publish() {
  local isthmus_delay=1 isthmus_words isthmus_told=""
  printf '%s\n' "$1" >"$isthmus_run_directory/port.new" &&
    mv -f -- "$isthmus_run_directory/port.new" "$isthmus_run_directory/port"
  until isthmus_words=$(timeout -k 5 30 scontrol update "JobId=$isthmus_job_id" \
    "Comment=$isthmus_comment:port=$1" 2>&1); do
    isthmus_words=${isthmus_words//[$'\n\r']/ }
    [ -n "$isthmus_told" ] ||
      say "scontrol update JobId=$isthmus_job_id Comment=... failed, and is tried again:" \
        "${isthmus_words:0:300}"
    isthmus_told=yes
    pause "$isthmus_delay"
    isthmus_delay=$((isthmus_delay < 30 ? isthmus_delay * 2 : 60))
  done
}

# The engine listens, so it has read everything: its key file goes, its port is told, a bastion called.
announce() {
  wait_for_listener "$1" "$2"
  # Where nothing could be seen the engine may still have to read it: then it goes with the job.
  [ -z "$isthmus_private" ] || ! listening "$1" || rm -rf -- "$isthmus_private"
  publish "$1"
}

granted_end() {
  local isthmus_end
  isthmus_end=$(SLURM_TIME_FORMAT=%s timeout -k 5 30 squeue -h -j "$isthmus_job_id" -o %e \
    2>/dev/null) || return 1
  [ -n "$isthmus_end" ] || return 1
  case $isthmus_end in *[!0-9]*) echo none ;; *) echo "$isthmus_end" ;; esac
}

# Ends the engine in time when the operator does not. The end is read again when the time has come:
# an administrator may have moved it. (If it was moved closer, SLURM's USR1 comes in time.) Of a
# short job the lead is at most half of what it was granted.
watch_end() {
  local isthmus_end isthmus_now isthmus_lead=""
  while :; do
    until isthmus_end=$(granted_end); do pause 60; done
    [ "$isthmus_end" != none ] || return
    printf -v isthmus_now '%(%s)T' -1
    if [ -z "$isthmus_lead" ]; then
      isthmus_lead=$(((isthmus_end - isthmus_now) / 2))
      [ "$isthmus_lead" -lt "$isthmus_term_lead" ] || isthmus_lead=$isthmus_term_lead
    fi
    [ $((isthmus_end - isthmus_lead)) -gt "$isthmus_now" ] || break
    pause $((isthmus_end - isthmus_lead - isthmus_now))
  done
  say "the job ends in $((isthmus_end - isthmus_now)) s"
  kill -TERM "$$"
}

# ---- The call to a bastion, where the site lets nobody in: ssh listens there for the engine. Its key
# waits in a file that this user alone can read, and is taken to this node, in memory where it can be.
isthmus_tunnel_folder=""

take_tunnel_key() {
  local isthmus_root
  [ -n "$isthmus_bastion_host" ] || return 0
  await_secret "$isthmus_shared_tunnel_key" "key for the bastion"
  for isthmus_root in /dev/shm "${TMPDIR:-/tmp}"; do
    isthmus_tunnel_folder=$(mktemp -d -- "$isthmus_root/isthmus-tunnel-$isthmus_job_id.XXXXXX" \
      2>/dev/null) && break
  done
  cp -- "$isthmus_shared_tunnel_key" "$isthmus_tunnel_folder/key" ||
    fail 78 "no private folder on this node"
  printf '%s\n' "$isthmus_bastion_known" >"$isthmus_tunnel_folder/known_hosts"
  rm -f -- "$isthmus_shared_tunnel_key"
}

forget_tunnel_key() { [ -z "$isthmus_tunnel_folder" ] || rm -rf -- "$isthmus_tunnel_folder"; }

# For as long as the engine runs: the first call after a loss is immediate, those after one that
# failed are ever further apart. The bastion lets a job in when the operator has seen its port, so in
# the first two minutes they stay close.
call_bastion() {
  local isthmus_delay=0 isthmus_first isthmus_began isthmus_now isthmus_child
  wait_for_listener "$1" "$2" >/dev/null # `announce` says what is to be said
  printf -v isthmus_first '%(%s)T' -1
  while :; do
    printf -v isthmus_began '%(%s)T' -1
    ssh -F none -N -T -i "$isthmus_tunnel_folder/key" -o BatchMode=yes -o IdentitiesOnly=yes \
      -o ExitOnForwardFailure=yes -o ConnectTimeout=10 -o LogLevel=ERROR \
      -o ServerAliveInterval=5 -o ServerAliveCountMax=3 -o StrictHostKeyChecking=yes \
      -o "UserKnownHostsFile=$isthmus_tunnel_folder/known_hosts" -o GlobalKnownHostsFile=/dev/null \
      -R "$isthmus_forward_port:127.0.0.1:$1" -p "$isthmus_bastion_port" \
      -l "$isthmus_bastion_user" -- "$isthmus_bastion_host" &
    isthmus_child=$!
    # shellcheck disable=SC2064
    trap "kill $isthmus_child 2>/dev/null; exit" TERM
    wait "$isthmus_child"
    printf -v isthmus_now '%(%s)T' -1
    if [ $((isthmus_now - isthmus_began)) -ge 30 ]; then isthmus_delay=0; fi
    [ "$isthmus_delay" -eq 0 ] || pause "$isthmus_delay"
    isthmus_delay=$((isthmus_delay == 0 ? 1 : isthmus_delay < 15 ? isthmus_delay * 2 : 30))
    if [ $((isthmus_now - isthmus_first)) -lt 120 ] && [ "$isthmus_delay" -gt 4 ]; then
      isthmus_delay=4
    fi
  done
}

# ---- The engine. TERM and USR1 to this shell become TERM to the engine's main process: TERM to all
# processes of an engine crashes it instead of draining it. It leads a process group of its own: what
# its main process leaves behind when it ends (a vLLM that is killed leaves all its GPU processes)
# ends with it, and nothing else can be in that group.
isthmus_engine=""
isthmus_signalled=""
isthmus_ending=""
isthmus_helpers=()
isthmus_code=1

# shellcheck disable=SC2317,SC2329
end_engine() {
  isthmus_signalled=yes
  isthmus_ending=yes
  [ -z "$isthmus_engine" ] || kill -TERM "$isthmus_engine" 2>/dev/null
}

start_helpers() {
  announce "$isthmus_engine_port" "$1" &
  isthmus_helpers=("$!")
  [ -n "$isthmus_tunnel_folder" ] || return 0
  call_bastion "$isthmus_engine_port" "$1" &
  isthmus_helpers+=("$!")
}

stop_helpers() {
  [ ${#isthmus_helpers[@]} -eq 0 ] || kill -TERM "${isthmus_helpers[@]}" 2>/dev/null
  isthmus_helpers=()
}

end_group() {
  local isthmus_tries
  kill -0 -- "-$1" 2>/dev/null || return 0
  say "ending what the engine's main process has left running"
  kill -TERM -- "-$1" 2>/dev/null
  for ((isthmus_tries = 0; isthmus_tries < 50; isthmus_tries++)); do
    sleep 0.1
    kill -0 -- "-$1" 2>/dev/null || return 0
  done
  kill -KILL -- "-$1" 2>/dev/null
}

run_engine() {
  local isthmus_now isthmus_group isthmus_previous=""
  hand_over_key
  set_command
  say "starting the engine on port $isthmus_engine_port"
  # Job control is what makes a group. With it on, `wait` would come back for an engine that is only
  # suspended, and a command in the background would keep standard input.
  set -m
  (
    set +m
    exec {isthmus_port_lock}>&-
    [ -z "$isthmus_private" ] || exec >"$isthmus_private/output" 2>&1
    # What is left to do once the engine's own variables are set stands in parameters, which no
    # variable can change.
    set -- "$isthmus_key_variable" "$isthmus_api_key" "${isthmus_engine_command[@]}"
    set_environment
    [ -z "$1" ] || export "$1=$2"
    shift 2
    exec "$@"
  ) </dev/null &
  isthmus_engine=$!
  set +m
  isthmus_group=$isthmus_engine
  start_helpers "$isthmus_group"
  [ -z "$isthmus_ending" ] || kill -TERM "$isthmus_engine" 2>/dev/null
  while :; do
    isthmus_signalled=""
    wait "$isthmus_engine" # comes back early for a signal
    isthmus_now=$?
    # 127: an earlier round had the engine's own code already.
    [ "$isthmus_now" -eq 127 ] && [ -n "$isthmus_previous" ] || isthmus_code=$isthmus_now
    [ -n "$isthmus_signalled" ] || break
    isthmus_previous=$isthmus_now
  done
  isthmus_engine=""
  say "the engine ended with $isthmus_code"
  end_group "$isthmus_group"
}

main() {
  local isthmus_tries isthmus_timer
  pass_gate
  take_key
  take_tunnel_key
  set_up
  mkdir -p -- "$isthmus_run_directory" || fail 74 "cannot make $isthmus_run_directory"
  cd -- "$isthmus_run_directory" || fail 74 "cannot use $isthmus_run_directory"
  trap end_engine TERM USR1
  watch_end &
  isthmus_timer=$!
  for isthmus_tries in 1 2 3; do
    find_port
    run_engine
    stop_helpers
    # Only if somebody else took the port meanwhile is another one worth a try.
    if [ -n "$isthmus_ending" ] || [ "$isthmus_code" -eq 0 ] || ! listening "$isthmus_engine_port"
    then break; fi
    say "port $isthmus_engine_port was taken by another process: trying the next one ($isthmus_tries)"
    exec {isthmus_port_lock}>&-
  done
  kill -TERM "$isthmus_timer" 2>/dev/null
  forget_tunnel_key
  # The codes of this script mean something else to the operator.
  case $isthmus_code in 74 | 75 | 78) isthmus_code=1 ;; esac
  exit "$isthmus_code"
}

main

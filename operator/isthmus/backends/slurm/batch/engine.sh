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

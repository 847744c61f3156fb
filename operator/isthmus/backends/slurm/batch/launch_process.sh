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

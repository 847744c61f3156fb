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

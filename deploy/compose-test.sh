#!/usr/bin/env bash
# Tries the compose cluster with a real Docker engine: starts it, writes and
# reads from the host and from inside the network, adds two brokers, kills one,
# reads everything again, and stops it all. Needs kcat on the host.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

compose=(docker-compose -p tidemark-trial -f docker-compose.yaml)
records=5000

finish() {
  local status=$?
  trap - EXIT
  if [ $status != 0 ]; then
    "${compose[@]}" ps || true
    "${compose[@]}" logs --tail 30 || true
  fi
  "${compose[@]}" down -v --remove-orphans >/dev/null 2>&1 || true
  [ $status = 0 ] && echo "compose-test: ok" || echo "compose-test: FAIL"
  exit $status
}
trap finish EXIT

say() { printf 'compose-test: %s\n' "$*"; }

# eventually SECONDS COMMAND...: until the command succeeds.
eventually() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { say "not in time: $*"; return 1; }
    sleep 0.5
  done
}

ready() { curl -fsS --max-time 2 "http://127.0.0.1:$1/readyz"; }
brokers() { [ "$(kcat -b localhost:19092 -L 2>/dev/null | grep -c '^  broker ')" = "$1" ]; }
lines() { seq -f 'record %g' 1 $records; }

# inside ARGUMENTS...: kcat in a container of the network, with the host's
# programs and libraries: the images hold nothing but one binary.
inside() {
  docker run --rm -i --network tidemark-trial_default -v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro \
    --entrypoint /usr/bin/kcat tidemark/tidemark:local "$@"
}

# same NAME COMMAND...: the command prints exactly what was written.
same() {
  local who=$1
  shift
  if ! diff <(lines | sort) <("$@" -C -t trial -o beginning -e -q | sort) >/dev/null; then
    say "$who does not read what was written"
    return 1
  fi
  say "$who reads all $records records"
}

"${compose[@]}" up -d
for port in 19192 19193 19194; do eventually 60 ready $port; done
eventually 30 brokers 3
say "three brokers are ready"

lines | kcat -P -b localhost:19093 -t trial -X acks=all
same "the host" kcat -b localhost:19094
same "a container" inside -b broker-1:9092

"${compose[@]}" up -d --scale broker=2
eventually 60 brokers 5
say "two more brokers joined"
same "the host, of five brokers" kcat -b localhost:19092
same "a container, by a scaled broker" inside -b broker:9092

docker kill -s KILL "$("${compose[@]}" ps -q broker-1)" >/dev/null
eventually 60 ready 19193
eventually 60 same "the host, one broker killed" kcat -b localhost:19093
same "a container, one broker killed" inside -b broker:9092
begun=$SECONDS
"${compose[@]}" stop
say "stopped in $((SECONDS - begun)) s"
"${compose[@]}" up -d --scale broker=0
for port in 19192 19193 19194; do eventually 60 ready $port; done
same "the host, after stop and start" kcat -b localhost:19092

#!/usr/bin/env bash
# Builds or fetches what the tests need, outside the tree, once per version:
#
#	install.sh TOOL...     tools: system minio etcd staticcheck kafka kafka-broker python node, or all
#
# Everything lands in $TIDEMARK_TOOLS (default ~/.cache/tidemark/tools):
#
#	minio etcd staticcheck   static binaries
#	kafka/*.jar              Kafka's command-line tools and their dependencies
#	kafka-broker/*.jar       Apache Kafka's broker, which the benchmarks compare with; not part of all
#	python/bin/python        a virtual environment with confluent-kafka
#	node/node_modules        KafkaJS
#
# etcd is built from this module's own go.mod, so that the server the tests
# start and the one embedded in the broker are the same code.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
tools=${TIDEMARK_TOOLS:-$HOME/.cache/tidemark/tools}
. "$here/versions.sh"

mkdir -p "$tools/.stamp"
exec 9>"$tools/.lock"
flock 9 # two runs share one tool directory; the second waits and finds the work done

say() { printf '%s\n' "tools: $*" >&2; }

# once NAME VERSION COMMAND...: runs the command unless NAME is installed at VERSION.
once() {
  local name=$1 version=$2
  shift 2
  [ "$(cat "$tools/.stamp/$name" 2>/dev/null)" = "$version" ] && return 0
  say "installing $name $version"
  local begun=$SECONDS
  "$@"
  printf '%s\n' "$version" >"$tools/.stamp/$name"
  say "installed $name in $((SECONDS - begun)) s"
}

# go_install PACKAGE@VERSION NAME: a static binary from a pinned module.
go_install() {
  local bin
  bin=$(mktemp -d "$tools/.bin.XXXXXX")
  (cd / && CGO_ENABLED=0 GOFLAGS=-trimpath GOBIN="$bin" go install -ldflags '-s -w' "$1")
  mv "$bin/$2" "$tools/$2"
  rmdir "$bin"
}

build_etcd() {
  (cd "$root" && CGO_ENABLED=0 GOFLAGS="$(go env GOFLAGS) -trimpath" go build -ldflags '-s -w' -o "$tools/etcd" go.etcd.io/etcd/server/v3)
}

fetch_kafka() {
  rm -rf "$tools/kafka"
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$tools/kafka"
  cp "$here/log4j2.xml" "$tools/kafka/"
}

fetch_kafka_broker() {
  rm -rf "$tools/kafka-broker"
  mvn -q -B -f "$here/kafka-broker/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$tools/kafka-broker"
  cp "$here/log4j2.xml" "$tools/kafka-broker/"
}

fetch_python() {
  rm -rf "$tools/python"
  python3 -m venv "$tools/python"
  "$tools/python/bin/pip" install -q --only-binary :all: "confluent-kafka==$CONFLUENT_KAFKA_VERSION"
}

fetch_node() {
  rm -rf "$tools/node"
  mkdir -p "$tools/node"
  (cd "$tools/node" && npm install --silent --no-audit --no-fund --no-save "kafkajs@$KAFKAJS_VERSION")
}

# system installs the Debian packages that are missing, when it may.
system() {
  local missing=()
  command -v kcat >/dev/null || missing+=(kcat)
  command -v node >/dev/null || missing+=(nodejs)
  command -v npm >/dev/null || missing+=(npm)
  command -v java >/dev/null || missing+=(default-jre-headless)
  command -v mvn >/dev/null || missing+=(maven)
  command -v gcc >/dev/null || missing+=(gcc libc6-dev) # the race detector needs cgo
  python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  local lists=(/var/lib/apt/lists/*_Packages*)
  if [ ${#missing[@]} -eq 0 ] && [ -e "${lists[0]}" ]; then
    return 0
  fi
  if [ "$(id -u)" != 0 ]; then
    say "missing Debian packages or package lists; run: apt-get update && apt-get install ${missing[*]}"
    return 1
  fi
  say "apt-get update${missing[*]:+, install ${missing[*]}}"
  apt-get update -q >&2
  [ ${#missing[@]} -eq 0 ] || DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

install() {
  case $1 in
    system) system ;;
    minio) once minio "$MINIO_VERSION" go_install "github.com/minio/minio@$MINIO_VERSION" minio ;;
    etcd) once etcd "$(cd "$root" && go list -m -f '{{.Version}}' go.etcd.io/etcd/server/v3)" build_etcd ;;
    staticcheck) once staticcheck "$STATICCHECK_VERSION $(go env GOVERSION)" go_install "honnef.co/go/tools/cmd/staticcheck@$STATICCHECK_VERSION" staticcheck ;;
    kafka) once kafka "$(cat "$here/pom.xml" "$here/log4j2.xml" | sha256sum | cut -c1-16)" fetch_kafka ;;
    kafka-broker) once kafka-broker "$(cat "$here/kafka-broker/pom.xml" "$here/log4j2.xml" | sha256sum | cut -c1-16)" fetch_kafka_broker ;;
    python) once python "$CONFLUENT_KAFKA_VERSION $(python3 -V)" fetch_python ;;
    node) once node "$KAFKAJS_VERSION" fetch_node ;;
    all) for tool in system kafka python node etcd staticcheck minio; do install "$tool"; done ;;
    *) say "no such tool: $1"; return 2 ;;
  esac
}

for tool in "$@"; do install "$tool"; done

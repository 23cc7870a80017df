# Tidemark. `make help` lists the targets.

SHELL := /bin/bash

# What is built beside the broker (MinIO, etcd, linters, clients of other
# languages) is kept outside the tree and reused.
export TIDEMARK_TOOLS ?= $(HOME)/.cache/tidemark/tools
export PATH := $(TIDEMARK_TOOLS):$(PATH)

# One way of building for everything but the race detector, so that the binary,
# the linters and the whole-system tests share one build cache.
export CGO_ENABLED := 0
export GOFLAGS := $(shell go env GOFLAGS) -trimpath
RACE := CGO_ENABLED=1 go test -race

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS := -s -w -X main.version=$(VERSION)

INSTALL := test/tools/install.sh
SYSTEM  := ./test/... ./bench/...
PACKAGES = $$(go list ./... | grep -vE '/(test|bench)(/|$$)')

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/tidemark
	go build -ldflags '$(LDFLAGS)' -o bin/tidemark ./cmd/tidemark

.PHONY: run
run: build ## start one broker on 127.0.0.1:9092, everything embedded, data under ./data
	exec bin/tidemark serve

.PHONY: tools
tools: ## install what the tests need into $TIDEMARK_TOOLS (ten minutes the first time)
	$(INSTALL) all

.PHONY: lint
lint: ## gofmt, vet and staticcheck
	@$(INSTALL) staticcheck
	@bad=$$(gofmt -l bench broker cache cmd metadata test tiering); if [ -n "$$bad" ]; then echo "gofmt would change:"; echo "$$bad"; exit 1; fi
	go vet ./...
	staticcheck ./...

.PHONY: check
check: build lint ## the fast loop: build, lint, unit tests with the race detector
	$(RACE) -short ./...

# The unit and conformance tests run first, with the race detector, then the
# fuzz targets for two minutes; the whole-system tests drive the built binary and
# run last, one package at a time, so that they have the machine. Each runs
# whatever the others say.
.PHONY: test
test: export CI ?= true
test: tools build lint ## everything CI runs, on any machine with Go, Java and Debian's packages
	@status=0; \
	$(RACE) -timeout 10m $(PACKAGES) || status=1; \
	go run ./test/fuzz -total 2m || status=1; \
	go test -p 1 -count=1 -timeout 25m $(SYSTEM) || status=1; \
	exit $$status

.PHONY: chaos
chaos: tools build ## the short form of every fault scenario, as CI runs it (ten minutes)
	CI=true go test -p 1 -count=1 -timeout 25m -v ./test/chaos/...

.PHONY: chaos-long
chaos-long: export TIDEMARK_CHAOS := long
chaos-long: export TIDEMARK_RESULTS ?= $(CURDIR)/.build/chaos/results.jsonl
chaos-long: export TIDEMARK_TEST_LOGS ?= $(CURDIR)/.build/chaos/logs
chaos-long: tools build ## the long forms, four hours; CHAOS_ARGS='-run TestS2' for one, TIDEMARK_CHAOS_DURATION=2h for a longer mix
	mkdir -p $(dir $(TIDEMARK_RESULTS))
	status=0; CI=true go test -p 1 -count=1 -timeout 0 -v ./test/chaos $(CHAOS_ARGS) || status=1; \
	go run ./test/chaos/results $(TIDEMARK_RESULTS); exit $$status

.PHONY: test-long
test-long: tools build ## the long forms of the other system tests
	TIDEMARK_TEST_LONG=1 CI=true go test -p 1 -count=1 -timeout 60m -v ./test

.PHONY: fuzz
FUZZTIME ?= 1m
fuzz: ## every fuzz target in turn, FUZZTIME (1m) each, and how often each was executed
	go run ./test/fuzz -each $(FUZZTIME)

.PHONY: seeded
seeded: tools ## build the known bugs in, one after the other, and see that each is found
	CI=true go run ./test/seeded $(SEEDED_ARGS)

WORKLOADS ?= bench/workloads/short/*.yaml

.PHONY: bench
bench: build ## figures against Apache Kafka, raw PUTs and a simulated S3, under ten minutes; see bench/README.md
	$(INSTALL) minio etcd kafka-broker
	go run ./bench $(BENCH_ARGS) $(WORKLOADS)

IMAGES := .build/images

.PHONY: images
images: build ## build the container images of the broker, etcd and MinIO
	$(INSTALL) etcd minio
	mkdir -p $(IMAGES)
	cp bin/tidemark $(TIDEMARK_TOOLS)/etcd $(TIDEMARK_TOOLS)/minio /etc/ssl/certs/ca-certificates.crt $(IMAGES)/
	for image in tidemark etcd minio; do \
	  docker build -q -t tidemark/$$image:local -f deploy/$$image.Dockerfile $(IMAGES) || exit 1; \
	done

.PHONY: compose-test
compose-test: images ## start the compose cluster, produce and consume through it, stop it
	deploy/compose-test.sh

.PHONY: clean
clean: ## remove what was built in the tree (not ./data, not the tools)
	rm -rf bin .build
	go clean -testcache

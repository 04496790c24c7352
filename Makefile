# Targets for people; `make help` lists them. Everything here is incremental:
# `go build` and the two scripts do nothing when nothing changed.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help version setup build sentry race lint test unit e2e soak demo critest containerd-integration kubelet bench govulncheck install clean fuzz

# Goals such as `setup build lint` are an order.
.NOTPARALLEL:

# Static programs: one file runs on every distribution.
export CGO_ENABLED := 0

PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
DESTDIR    ?=

# A semantic version: the tag, else that of the commit. Empty without git: then the
# program says what the go command knows.
VERSION := $(shell { git describe --tags --exact-match --match 'v[0-9]*.[0-9]*.[0-9]*' 2>/dev/null || \
	TZ=UTC0 git show -s --date=format-local:%Y%m%d%H%M%S --abbrev=12 --format=v0.0.0-%cd-%h 2>/dev/null; } | sed 's/^v//'; )$(shell \
	[ -z "$$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || echo +dirty)
LDFLAGS := -s -w -X main.version=$(VERSION)

# More than two test programs at once only wait for each other: most of them start
# sandboxes.
# The tests run programs that go does not know of, so a cached result says nothing.
GOTEST := go test -count=1 -p 2
RACETEST := CGO_ENABLED=1 $(GOTEST) -race

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

version: # of what is built from this tree
	@echo '$(VERSION)'

setup: ## install what is missing: Debian packages, CNI plugins, crictl, golangci-lint, checklocks (root for packages)
	@hack/setup.sh

build: sentry ## bin/cri-sandbox, with the sentry program inside
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/cri-sandbox ./cmd/cri-sandbox

sentry:
	@podsandbox/gvisor/build.sh

race: sentry ## bin/race/cri-sandbox, the daemon with the race detector, for tests
	@mkdir -p bin/race
	CGO_ENABLED=1 go build -race -trimpath -o bin/race/cri-sandbox ./cmd/cri-sandbox

lint: setup sentry ## gofmt, go vet, golangci-lint, checklocks, house rules
	@bad=$$(find . -name '*.go' -not -path '*/testdata/*' -not -path './bin/*' -not -name '*_generated.go' -exec gofmt -s -l {} +); \
	if [[ -n "$$bad" ]]; then printf 'gofmt -s -w is needed for:\n%s\n' "$$bad"; exit 1; fi
	go vet ./...
	cd podsandbox/sentry && go vet ./...
	bin/golangci-lint run ./...
	cd podsandbox/sentry && ../../bin/golangci-lint run ./...
	go vet -vettool=$(CURDIR)/bin/checklocks -wrappers=false ./...
	go test ./hack/rules

test: setup build race lint ## everything, unit tests and model with the race detector; the end-to-end part needs root
	@if [[ $$(id -u) != 0 ]]; then echo '=== SKIPPED: end-to-end tests and all others that start a sandbox need root ==='; fi
	cd podsandbox/sentry && $(GOTEST) -timeout 10m ./...
	$(RACETEST) -timeout 15m $$(go list ./... | grep -v /test/e2e)
	@if [[ $$(id -u) == 0 ]]; then hack/setup.sh apps; set -x; $(GOTEST) -timeout 30m ./test/e2e/...; fi

unit: ## unit tests alone, of what is built already
	$(GOTEST) -timeout 15m $$(go list ./... | grep -v /test/e2e)

e2e: setup build race ## end-to-end tests alone; needs root
	@hack/setup.sh apps
	$(GOTEST) -timeout 30m ./test/e2e/...

# How long those tests take that go by time, and each fuzz target.
SOAK      ?= 10m
SOAK_FUZZ ?= 2m

soak: setup build race ## the long forms of tests, and fuzzing; needs root. SOAK=2h SOAK_ARGS='-run TestLoad' SOAK_FUZZ=0s
	@hack/setup.sh apps
	CRI_SANDBOX_SOAK=$(SOAK) $(GOTEST) -timeout 48h $(SOAK_ARGS) ./podsandbox/logs ./hack/model ./test/e2e
	@if [[ '$(SOAK_FUZZ)' != 0s ]]; then set -x; hack/fuzz.sh $(SOAK_FUZZ); fi

FUZZTIME ?= 10s

fuzz: setup build ## every fuzz target for FUZZTIME, 10s by default; one with FUZZ=NAME; the one of requests needs root
	@hack/fuzz.sh $(FUZZTIME) $(FUZZ)

demo: setup build ## run a pod of two containers over CRI, step by step; needs root
	go run ./hack/demo

critest: build ## the CRI conformance suite of cri-tools; needs root
	@hack/setup.sh critest
	go run ./hack/critest $(CRITEST_ARGS)

containerd-integration: build ## containerd's own tests of CRI, as far as they can be asked of another; needs root
	@hack/setup.sh containerd
	go run ./hack/containerd $(CONTAINERD_ARGS)

kubelet: setup build ## the real kubelet, with static pods, step by step; needs root, and minutes to build it once
	@hack/setup.sh kubelet
	go run ./hack/kubelet

bench: setup build ## measure; needs root. BENCH_ARGS='--vs unix:///run/containerd/containerd.sock' compares
	go run ./hack/bench --local $(BENCH_ARGS)

govulncheck: sentry ## look for known vulnerabilities in what is called; needs the database of vulnerabilities
	@hack/vulncheck.sh

install: build ## binary, systemd unit, config; honours DESTDIR, PREFIX, SYSCONFDIR, UNITDIR
	install -D -m 0755 bin/cri-sandbox '$(DESTDIR)$(PREFIX)/bin/cri-sandbox'
	install -d '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(SYSCONFDIR)/cri-sandbox/config.d'
	sed 's|@PREFIX@|$(PREFIX)|g; s|@SYSCONFDIR@|$(SYSCONFDIR)|g' hack/install/cri-sandbox.service > '$(DESTDIR)$(UNITDIR)/cri-sandbox.service'
	@conf='$(DESTDIR)$(SYSCONFDIR)/cri-sandbox/config.toml'; \
	if [[ -e "$$conf" ]]; then echo "keeping $$conf"; else bin/cri-sandbox config default > "$$conf.tmp"; mv "$$conf.tmp" "$$conf"; echo "wrote $$conf"; fi

clean: ## remove what the build made
	rm -rf bin dist
	find podsandbox/gvisor/embedded -type f -not -name README -delete

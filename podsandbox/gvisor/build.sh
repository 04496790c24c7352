#!/bin/sh
# Builds the sandbox program into embedded/, where the daemon's build finds it.
# Does nothing when the program is newer than all it is made of.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=$here/embedded/cri-sandbox-sentry
src=$here/../sentry
export CGO_ENABLED=0

newer() { # whether one of the files behind $1 is newer than $1, or there is no $1
	target=$1
	shift
	[ ! -e "$target" ] || [ -n "$(find "$@" -type f ! -name '*_test.go' -newer "$target")" ]
}

cd "$src"
if newer seccomp_generated.go go.mod go.sum genseccomp; then
	go generate .
fi
if newer "$out" . "$here/build.sh"; then
	go build -trimpath -ldflags "-s -w" -o "$out" .
	touch "$out" # go build leaves a program as it is when nothing changed
fi
if newer "$out.sha256" "$out"; then
	sha256sum <"$out" | cut -c 1-64 | tr -d '\n' >"$out.sha256.new"
	mv "$out.sha256.new" "$out.sha256"
fi

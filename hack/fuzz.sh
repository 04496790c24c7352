#!/bin/bash
# Runs every fuzz target of the root module for the time given as the argument,
# such as 30s or 10m, one after the other; with a second argument those whose name
# matches that regular expression. What a target fails with, go leaves in
# its package's testdata/fuzz; commit it, and every later run of the tests has it.
set -eu -o pipefail
each=${1:?usage: hack/fuzz.sh DURATION [NAME]} name=${2:-.}
cd "$(dirname "$0")/.."

failed=() out=$(mktemp)
trap 'rm -f "$out"' EXIT
for package in $(go list ./...); do
	# A package without tests, or whose tests need what is not there, lists nothing.
	targets=$(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true)
	for target in $targets; do
		[[ "$target" =~ $name ]] || continue
		echo "=== $package $target"
		# An input that only reaches new code is not worth a minute of minimizing.
		if ! go test -run '^$' -fuzz "^$target\$" -fuzztime "$each" -fuzzminimizetime 20x "$package" 2>&1 | tee "$out"; then
			# Before Go 1.27 the end of the time is sometimes called a failure (golang.org/issue/75804).
			if grep -q '^ *context deadline exceeded$' "$out" && ! grep -q 'Failing input' "$out"; then
				continue
			fi
			failed+=("$package $target")
		fi
	done
done
if [[ ${#failed[@]} -gt 0 ]]; then
	printf 'FAILED: %s\n' "${failed[@]}"
	exit 1
fi

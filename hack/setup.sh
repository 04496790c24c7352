#!/usr/bin/env bash
# Installs what building, testing and the demo need beyond Go, git and make:
#
#   hack/setup.sh             Debian packages, the CNI plugins, crictl, golangci-lint, checklocks
#   hack/setup.sh critest     critest, too
#   hack/setup.sh kubelet     the kubelet, too; minutes, the first time
#   hack/setup.sh containerd  containerd's integration tests, too; minutes, the first time
#   hack/setup.sh apps        the applications of the end-to-end tests, too: an archive of
#                             Debian packages, 70 MB to download; nothing is installed
#
# The programs are built from the versions in hack/tools/go.mod (golangci-lint, the
# kubelet and containerd's tests each have a go.mod of their own in a directory there)
# into bin/cni and bin/. What is there already, of the same version, is left alone: then
# this takes a fraction of a second and needs neither root nor a network.
set -euo pipefail

cd "$(dirname "$0")/.."
root=$PWD

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- Debian packages -------------------------------------------------------------

# One line a package: its name, and a program or file that it brings. The race detector
# is linked by gcc.
packages='
busybox-static  /bin/busybox
ca-certificates /etc/ssl/certs/ca-certificates.crt
gcc             gcc
iproute2        ip
iptables        iptables
libc6-dev       /usr/include/stdio.h
nftables        nft
'

present() {
	case $1 in
	/*) [[ -e $1 ]] ;;
	# Root's directories are not in everybody's PATH.
	*) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
	esac
}

# Debian's plain busybox has the same path. A dynamic program names its loader in
# its first page.
static_busybox() { ! head -c 4096 /bin/busybox | grep -q '/ld-linux'; }

missing=()
while read -r package brings; do
	[[ -n $package ]] || continue
	if ! present "$brings"; then
		missing+=("$package")
	elif [[ $package == busybox-static ]] && ! static_busybox; then
		missing+=("$package")
	fi
done <<<"$packages"

if ((${#missing[@]} > 0)); then
	command -v apt-get >/dev/null || die "please install: ${missing[*]}"
	[[ $(id -u) == 0 ]] || die "please run as root, once, to install: ${missing[*]}"
	say "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	install=(apt-get install -y -qq --no-install-recommends "${missing[@]}")
	# The lists of packages may be absent or old.
	"${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}" >/dev/null; }
fi

# --- Go programs -----------------------------------------------------------------

command -v go >/dev/null || die "Go is not in PATH; version 1.26 or later is needed, see https://go.dev/dl"

export CGO_ENABLED=0 GOWORK=off
stamps=$root/bin/.setup
mkdir -p "$root/bin/cni" "$stamps"

# The version of everything that goes into the programs, and of what builds them.
stamp=$({ cat hack/tools/go.mod hack/tools/go.sum hack/setup.sh; go env GOVERSION GOOS GOARCH; } | sha256sum | cut -d' ' -f1)

# current NAME FILE...: whether all files are there and of this stamp.
current() {
	local name=$1 file
	shift
	[[ -f $stamps/$name && $(<"$stamps/$name") == "$stamp" ]] || return 1
	for file; do [[ -x $file ]] || return 1; done
}

# replace FILE: puts FILE.new in FILE's place, also while FILE runs.
replace() { mv -f "$1.new" "$1"; }

version_of() { (cd hack/tools && go list -m -f '{{.Version}}' "$1"); }

plugins_module=github.com/containernetworking/plugins
plugins=(
	ipam/host-local
	main/bridge
	main/loopback
	main/ptp
	meta/bandwidth
	meta/firewall
	meta/portmap
	meta/tuning
)

build_plugins() {
	local files=() plugin version ldflags
	for plugin in "${plugins[@]}"; do files+=("$root/bin/cni/${plugin##*/}"); done
	current cni "${files[@]}" && return
	version=$(version_of "$plugins_module")
	say "building the CNI plugins $version"
	ldflags="-s -w -X $plugins_module/pkg/utils/buildversion.BuildVersion=$version"
	for plugin in "${plugins[@]}"; do
		(cd hack/tools && go build -trimpath -ldflags "$ldflags" -o "$root/bin/cni/${plugin##*/}.new" "$plugins_module/plugins/$plugin")
		replace "$root/bin/cni/${plugin##*/}"
	done
	echo "$stamp" >"$stamps/cni"
}

critools_module=sigs.k8s.io/cri-tools

build_crictl() {
	current crictl "$root/bin/crictl" && return
	local version
	version=$(version_of "$critools_module")
	say "building crictl $version"
	(cd hack/tools && go build -trimpath -ldflags "-s -w -X $critools_module/pkg/version.Version=$version" \
		-o "$root/bin/crictl.new" "$critools_module/cmd/crictl")
	replace "$root/bin/crictl"
	echo "$stamp" >"$stamps/crictl"
}

build_critest() {
	current critest "$root/bin/critest" && return
	local version
	version=$(version_of "$critools_module")
	say "building critest $version"
	(cd hack/tools && go test -c -trimpath -ldflags "-s -w -X $critools_module/pkg/version.Version=$version" \
		-o "$root/bin/critest.new" "$critools_module/cmd/critest")
	replace "$root/bin/critest"
	echo "$stamp" >"$stamps/critest"
}

# The suite looks at how a shell starts other programs. Debian's static busybox
# runs its own applets instead; the package of the other build conflicts with it,
# so it is unpacked and not installed.
unpack_busybox() {
	current critest-busybox "$root/bin/critest-busybox" && return
	say "unpacking busybox"
	local dir
	dir=$(mktemp -d)
	chmod 0755 "$dir"
	(cd "$dir" && apt-get download busybox >/dev/null 2>&1 && dpkg -x busybox_*.deb .) ||
		die "cannot download the Debian package busybox"
	cp "$dir/bin/busybox" "$root/bin/critest-busybox.new"
	rm -rf "$dir"
	replace "$root/bin/critest-busybox"
	echo "$stamp" >"$stamps/critest-busybox"
}

# build_checker NAME MODULE PACKAGE: one that looks for mistakes in code.
build_checker() {
	current "$1" "$root/bin/$1" && return
	say "building $1 $(version_of "$2")"
	(cd hack/tools && go build -trimpath -ldflags '-s -w' -o "$root/bin/$1.new" "$2/$3")
	replace "$root/bin/$1"
	echo "$stamp" >"$stamps/$1"
}

# A module of its own: as its authors say, its checkers are tested in the versions
# that it asks for.
build_golangci_lint() {
	local stamp version
	stamp=$({ cat hack/tools/golangci-lint/go.mod hack/tools/golangci-lint/go.sum; go env GOVERSION GOOS GOARCH; } | sha256sum | cut -d' ' -f1)
	current golangci-lint "$root/bin/golangci-lint" && return
	version=$(cd hack/tools/golangci-lint && go list -m -f '{{.Version}}' github.com/golangci/golangci-lint/v2)
	say "building golangci-lint $version"
	(cd hack/tools/golangci-lint && go build -trimpath -ldflags "-s -w -X main.version=$version" \
		-o "$root/bin/golangci-lint.new" github.com/golangci/golangci-lint/v2/cmd/golangci-lint)
	replace "$root/bin/golangci-lint"
	echo "$stamp" >"$stamps/golangci-lint"
}

# A module of its own: Kubernetes as a dependency needs a replacement for each of
# its parts, and other versions than the other tools.
build_kubelet() {
	local stamp version
	stamp=$({ cat hack/tools/kubelet/go.mod hack/tools/kubelet/go.sum; go env GOVERSION GOOS GOARCH; } | sha256sum | cut -d' ' -f1)
	current kubelet "$root/bin/kubelet" && return
	version=$(cd hack/tools/kubelet && go list -m -f '{{.Version}}' k8s.io/kubernetes)
	say "building the kubelet $version"
	(cd hack/tools/kubelet && go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" \
		-o "$root/bin/kubelet.new" k8s.io/kubernetes/cmd/kubelet)
	replace "$root/bin/kubelet"
	echo "$stamp" >"$stamps/kubelet"
}

# A module of its own: they need what containerd needs, in its versions.
build_containerd_tests() {
	local stamp version
	stamp=$({ cat hack/tools/containerd/go.mod hack/tools/containerd/go.sum; go env GOVERSION GOOS GOARCH; } | sha256sum | cut -d' ' -f1)
	current containerd-integration "$root/bin/containerd-integration" && return
	version=$(cd hack/tools/containerd && go list -m -f '{{.Version}}' github.com/containerd/containerd/v2)
	say "building the integration tests of containerd $version"
	(cd hack/tools/containerd && go test -c -trimpath -ldflags '-s -w' \
		-o "$root/bin/containerd-integration.new" github.com/containerd/containerd/v2/integration)
	replace "$root/bin/containerd-integration"
	echo "$stamp" >"$stamps/containerd-integration"
}

# Real applications, as one layer of an image: their packages and what those need, of
# this machine's release, unpacked side by side. None is installed, so nothing of them
# starts or stays on the machine, and root is needed only to read new lists of packages.
apps='nginx nodejs php-fpm postgresql python3 redis-server redis-tools'
# Of what they need: what only their maintainer scripts call, which do not run, and the
# JIT compiler of PostgreSQL. Less to download, and a third less to pull in each run.
apps_without='adduser ca-certificates debconf dmsetup dpkg init-system-helpers iproute2 libbpf.* libc-l10n libcryptsetup.*
libdb5.* libdevmapper.* libelf1.* libfdisk1 libkmod2 libllvm.* libpam-modules.* libperl.* lib.*-perl libsemanage.*
libsystemd-shared libz3-.* locales lsb-base mount openssl passwd perl.* postgresql-common.* postgresql-client-common procps
psmisc ssl-cert systemd.* sysvinit-utils tar ucf usrmerge util-linux.*'

# As on a machine with no package at all: what is installed here may be of another origin.
apps_apt() { apt-get -qq -o Dir::State::status=/dev/null -o APT::Install-Recommends=false "$@"; }

# download_apps DIR
download_apps() {
	local list
	# shellcheck disable=SC2086 # lists of words
	list=$(apps_apt -s install $apps | awk '$1 == "Inst" {print $2}' | grep -vxE "$(echo $apps_without | tr ' ' '|')") || return
	(cd "$1" && apps_apt download $list)
}

pack_apps() {
	local archive=$root/bin/apps.tar stamp dir
	stamp=$({ echo "$apps $apps_without"; declare -f download_apps pack_apps; uname -m; } | sha256sum | cut -d' ' -f1)
	[[ -f $archive && -f $stamps/apps && $(<"$stamps/apps") == "$stamp" ]] && return
	if ! command -v apt-get >/dev/null; then
		say "no apt-get here: the tests of applications will be skipped"
		return
	fi
	say "packing $apps"
	dir=$(mktemp -d)
	trap "rm -rf '$dir'" EXIT
	mkdir -p "$dir/debs" "$dir/root/usr/lib"
	if ! download_apps "$dir/debs" >/dev/null 2>&1; then
		# The lists of packages may be absent or old.
		[[ $(id -u) == 0 ]] && apt-get update -qq
		download_apps "$dir/debs" >"$dir/log" 2>&1 || { tail -n 3 "$dir/log" >&2; die "cannot download $apps"; }
	fi
	# Packages of one release differ in whether they know that /lib is a link.
	ln -s usr/lib "$dir/root/lib"
	ln -s usr/lib64 "$dir/root/lib64"
	mkdir -p "$dir/root/usr/lib64"
	find "$dir/debs" -name '*.deb' -print0 | DIR=$dir/root xargs -0 -n 1 -P 2 bash -c 'set -o pipefail
		dpkg-deb --fsys-tarfile "$1" | tar -x -C "$DIR" --keep-directory-symlink --no-same-owner \
			--exclude=./usr/share/{doc,info,lintian,locale,man} --exclude="./usr/lib/postgresql/*/bitcode" \
			--exclude="./usr/lib/*/gconv" --exclude=./usr/lib/file --exclude="./usr/lib/php/*/fileinfo.so"' -
	tar -C "$dir/root" --sort=name --numeric-owner --owner=0 --group=0 -cf "$archive.new" .
	rm -rf "$dir"
	trap - EXIT
	replace "$archive"
	echo "$stamp" >"$stamps/apps"
}

build_plugins
build_crictl
build_checker checklocks gvisor.dev/gvisor tools/checklocks/cmd/checklocks
build_golangci_lint
for extra; do
	case $extra in
	critest) build_critest && unpack_busybox ;;
	kubelet) build_kubelet ;;
	containerd) build_containerd_tests ;;
	apps) pack_apps ;;
	*) die "unknown argument $extra; usage: hack/setup.sh [critest] [kubelet] [containerd] [apps]" ;;
	esac
done

#!/usr/bin/env bash
# Installs what the build, the tests, the demo and the benchmarks need, by name,
# and only what is missing. Idempotent; Debian 12; root.
#
# Package lists: ci/packages.txt, one name a line, with the reason behind a #.
# Besides, where npm is there: the official schema of SARIF 2.1.0, for tests/command.
set -euo pipefail
cd "$(dirname "$0")/.."

# Out of the npm package of the format's own tool; unpacked is that one file only.
fetch_sarif_schema() {
	local package=@microsoft/sarif-multitool-linux@5.7.0
	local sum=1c49a0f2b60444c71bb14878e21e0d882198eff4c539861b133093ad89ed798c
	local to="${XDG_CACHE_HOME:-$HOME/.cache}/spanguard/sarif-2.1.0.json" dir
	[ ! -e "$to" ] && command -v npm > /dev/null || return 0
	dir=$(mktemp -d)
	if (cd "$dir" && npm pack --silent "$package" > /dev/null 2>&1 &&
		tar xzf ./*.tgz package/sarif-2.1.0.json &&
		echo "$sum  package/sarif-2.1.0.json" | sha256sum --check --status); then
		mkdir -p "$(dirname "$to")"
		mv "$dir/package/sarif-2.1.0.json" "$to"
	else
		echo "setup: no schema of SARIF from $package; its test will be skipped" >&2
	fi
	rm -rf "$dir"
}

fetch_sarif_schema
mapfile -t wanted < <(sed 's/#.*//; s/[[:space:]]//g; /^$/d' ci/packages.txt)
missing=()
for p in "${wanted[@]}"; do
	status=$(dpkg-query -W -f='${Status}' "$p" 2>/dev/null || true)
	[ "$status" = "install ok installed" ] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" != 0 ]; then
	echo "setup: these packages are missing, and only root can install them: ${missing[*]}" >&2
	exit 1
fi
echo "setup: installing ${missing[*]}" >&2
# servers are started by the tests that need them, on ports of their own
policy=/usr/sbin/policy-rc.d
made_policy=no
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' > $policy
	chmod 755 $policy
	made_policy=yes
fi
trap '[ $made_policy = no ] || rm -f $policy' EXIT
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
apt-get update -qq > "$log" 2>&1 || { cat "$log" >&2; exit 1; }
apt-get install -y -qq --no-install-recommends "${missing[@]}" > "$log" 2>&1 ||
	{ cat "$log" >&2; exit 1; }
rm -f "$log"

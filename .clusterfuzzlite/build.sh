#!/bin/bash -eu
exec bash -eu "$SRC/spanguard/ci/oss-fuzz/build.sh"

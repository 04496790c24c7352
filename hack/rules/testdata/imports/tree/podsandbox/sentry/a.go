package x

import _ "github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
import _ "github.com/cri-sandbox/cri-sandbox/podsandbox/sentry/seccomp"
import _ "gvisor.dev/gvisor/runsc/cli"

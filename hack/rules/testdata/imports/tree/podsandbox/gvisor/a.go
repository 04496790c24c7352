package x

import _ "github.com/cri-sandbox/cri-sandbox/podsandbox"
import _ "github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
import _ "gvisor.dev/gvisor/pkg/urpc"

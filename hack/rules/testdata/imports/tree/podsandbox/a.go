package x

import _ "google.golang.org/grpc/codes"
import _ "github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
import _ "github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor"
import _ "github.com/cri-sandbox/cri-sandbox/network"
import _ "gvisor.dev/gvisor/pkg/urpc"
import _ "gvisor.dev/gvisor/pkg/cleanup"
import _ "github.com/cri-sandbox/cri-sandbox/hack/testenv"

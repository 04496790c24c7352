package x

import _ "github.com/cri-sandbox/cri-sandbox/hack/testenv"
import _ "github.com/cri-sandbox/cri-sandbox/cri"
import _ "google.golang.org/grpc"

package x

import _ "google.golang.org/grpc"
import _ "github.com/cri-sandbox/cri-sandbox/hack/testenv"

package x

import _ "google.golang.org/grpc"
import _ "github.com/cri-sandbox/cri-sandbox/podsandbox"
import _ "github.com/cri-sandbox/cri-sandbox/cmd/cri-sandbox"
import _ "github.com/containerd/containerd/v2/core/images"
